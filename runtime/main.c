/* main.c - the `moonrock` program: starts LuaJIT, and hands the arguments to the Lua library
 * inside the binary (lua/moonrock/program.lua), or to that of the checkout MOONROCK_LUA. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_EDIT
#include <editline/readline.h>
#endif

#include "embedded.h"

/* embedded(module) -> text, chunk name; nothing for a module that is not inside. */
static int embedded(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    for (const embedded_module *m = embedded_modules; m->name; m++)
        if (!strcmp(m->name, name)) {
            lua_pushlstring(L, m->text, m->len);
            lua_pushstring(L, m->chunk);
            return 2;
        }
    return 0;
}

/* embedded_names() -> { "argparse", ... }, in no order. */
static int embedded_names(lua_State *L)
{
    lua_newtable(L);
    for (int i = 0; embedded_modules[i].name; i++) {
        lua_pushstring(L, embedded_modules[i].name);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* read_line(prompt) -> a line of the terminal, kept in its history; nothing at the end. */
static int read_line(lua_State *L)
{
    const char *prompt = luaL_checkstring(L, 1);
#ifdef HAVE_EDIT
    char *line = readline(prompt);
    if (!line)
        return 0;
    if (*line)
        add_history(line);
#else
    char *line = NULL;
    size_t room = 0;
    fputs(prompt, stdout);
    fflush(stdout);
    ssize_t len = getline(&line, &room, stdin);
    if (len < 0) {
        free(line);
        return 0;
    }
    if (len > 0 && line[len - 1] == '\n')
        line[len - 1] = 0;
#endif
    lua_pushstring(L, line);
    free(line);
    return 1;
}

static const luaL_Reg host[] = {
    {"embedded", embedded},
    {"embedded_names", embedded_names},
    {"read_line", read_line},
    {NULL, NULL},
};

/* Runs program.lua with the table of functions above; it returns the exit status. */
static int start(lua_State *L)
{
    const char *checkout = getenv("MOONROCK_LUA");
    if (checkout && *checkout) {
        const char *path = lua_pushfstring(L, "%s/lua/moonrock/program.lua", checkout);
        if (luaL_loadfile(L, path))
            return lua_error(L);
    } else {
        lua_pushcfunction(L, embedded);
        lua_pushliteral(L, "moonrock.program");
        lua_call(L, 1, 2);
        size_t len;
        const char *text = lua_tolstring(L, -2, &len);
        if (luaL_loadbuffer(L, text, len, lua_tostring(L, -1)))
            return lua_error(L);
    }
    lua_newtable(L);
    luaL_register(L, NULL, host);
    lua_call(L, 1, 1);
    return 1;
}

int main(int argc, char **argv)
{
    lua_State *L = luaL_newstate();
    if (!L) {
        fputs("moonrock: out of memory\n", stderr);
        return 1;
    }
    luaL_openlibs(L);
    lua_createtable(L, argc, 1); /* program.lua moves it, so that arg[0] is the script */
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_setglobal(L, "arg");
    lua_pushcfunction(L, start);
    int status = 1;
    if (lua_pcall(L, 0, 1, 0)) {
        const char *message = lua_tostring(L, -1);
        fprintf(stderr, "moonrock: %s\n", message ? message : "error object is not a string");
    } else {
        status = (int)lua_tointeger(L, -1);
    }
    lua_close(L);
    return status;
}
