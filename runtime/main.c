/* main.c - the `moonrock` program: starts LuaJIT, and hands the arguments to the Lua library
 * inside the binary (lua/moonrock/program.lua), or to that of the checkout MOONROCK_LUA. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <locale.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "embedded.h"
#include "moonrock.h"

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

/* ---- the prompt -------------------------------------------------------------------------- */

/* Seconds in which what was interrupted may end by itself, as training does after its batch, with a commit. */
#define PATIENCE 0.5
#define HOOK_EVERY 1000 /* instructions */

static lua_State *evaluating; /* NULL: nothing is */
static double pressed_at;
static volatile sig_atomic_t presses;

static int ours(const char *source)
{
    return !strncmp(source, "@moonrock/", 10) || strstr(source, "/lua/moonrock/") != NULL;
}

/* Ends what is being evaluated, but never inside of the library, which would leave a step half done. */
static void stop(lua_State *L, lua_Debug *at)
{
    if (presses < 2 && mr_clock() - pressed_at < PATIENCE)
        return;
    lua_getinfo(L, "S", at);
    if (ours(at->source))
        return;
    lua_createtable(L, 0, 1);
    lua_pushinteger(L, SIGINT);
    lua_setfield(L, -2, "interrupted");
    lua_error(L);
}

static void on_interrupt(int number)
{
    mr_interrupt_set(number);
    if (!evaluating)
        return;
    presses++;
    if (presses == 1)
        pressed_at = mr_clock();
    lua_sethook(evaluating, stop, LUA_MASKCOUNT, HOOK_EVERY);
}

static void catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: reads wake up */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

/* libedit's, if it is installed: looked up when a prompt begins, so that the build does not depend on it. */
static struct {
    char *(*readline)(const char *prompt);
    void (*using_history)(void);
    int (*add_history)(const char *line);
    int (*stifle_history)(int most);
    int (*read_history)(const char *path);
    int (*write_history)(const char *path);
} edit;
static char *history, *last_line; /* path of its file, or NULL; the line added last */

/* Makes the directories that a path is in, for the user alone. */
static int make_parents(char *path)
{
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        int failed = mkdir(path, 0700) && errno != EEXIST;
        *at = '/';
        if (failed)
            return -1;
    }
    return 0;
}

/* edit(path of the history or nil, lines kept) -> whether there is line editing, what is wrong with the
 * history. */
static int edit_begin(lua_State *L)
{
    catch_interrupts();
    const char *path = luaL_optstring(L, 1, NULL);
    static const char *const names[] = {"libedit.so.2", "libedit.so.0", "libedit.so",
                                        "libedit.3.dylib"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return 0;
    struct {
        const char *name;
        void *to;
    } symbols[] = {
        {"readline", &edit.readline},         {"using_history", &edit.using_history},
        {"add_history", &edit.add_history},   {"stifle_history", &edit.stifle_history},
        {"read_history", &edit.read_history}, {"write_history", &edit.write_history},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            edit.readline = NULL;
            return 0;
        }
        memcpy(symbols[i].to, &symbol, sizeof symbol);
    }
    setlocale(LC_CTYPE, "");
    edit.using_history();
    edit.stifle_history((int)luaL_checkinteger(L, 2));
    lua_pushboolean(L, 1);
    if (!path || !(history = strdup(path)))
        return 1;
    if (make_parents(history) || (access(history, F_OK) && edit.write_history(history)) ||
        access(history, R_OK | W_OK)) {
        lua_pushfstring(L, "%s: %s", path, strerror(errno));
        free(history);
        history = NULL;
        return 2;
    }
    edit.read_history(history);
    return 1;
}

static void remember(const char *line)
{
    if (!*line || (last_line && !strcmp(line, last_line)))
        return;
    edit.add_history(line);
    if (history)
        edit.write_history(history);
    free(last_line);
    last_line = strdup(line);
}

static char *plain_line(const char *prompt)
{
    char *line = NULL;
    size_t room = 0;
    fputs(prompt, stdout);
    fflush(stdout);
    ssize_t len = getline(&line, &room, stdin);
    if (len < 0) {
        clearerr(stdin);
        free(line);
        return NULL;
    }
    if (len > 0 && line[len - 1] == '\n')
        line[len - 1] = 0;
    return line;
}

/* read_line(prompt) -> a line of the terminal; false if Ctrl-C gave it up; nil at the end. */
static int read_line(lua_State *L)
{
    const char *prompt = luaL_checkstring(L, 1);
    char *line = edit.readline ? edit.readline(prompt) : plain_line(prompt);
    if (!line) {
        /* The read was ended, but the signal may be with another thread that has not noted it yet. */
        for (int i = 0; i < 20 && mr_interrupted() != SIGINT; i++)
            usleep(5000);
        if (mr_interrupted() != SIGINT)
            return 0;
        mr_interrupt_set(0);
        putchar('\n');
        lua_pushboolean(L, 0);
        return 1;
    }
    if (edit.readline)
        remember(line);
    lua_pushstring(L, line);
    free(line);
    return 1;
}

/* evaluate(f) -> what f returns; Ctrl-C ends it by an error. */
static int evaluate(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    presses = 0;
    evaluating = L;
    int rc = lua_pcall(L, 0, LUA_MULTRET, 0);
    evaluating = NULL;
    lua_sethook(L, NULL, 0, 0);
    if (rc) {
        lua_pushboolean(L, 0);
        lua_insert(L, 1);
    }
    return lua_gettop(L);
}

/* What Lua may allocate while a store's code runs (lua/moonrock/sandbox.lua). */
static struct {
    lua_Alloc allocate;
    void *state;
    size_t used, most;
} lua_memory;

static void *bounded(void *unused, void *p, size_t old_size, size_t size)
{
    (void)unused;
    if (size > old_size && lua_memory.used + (size - old_size) > lua_memory.most)
        return NULL;
    void *q = lua_memory.allocate(lua_memory.state, p, old_size, size);
    if (q || !size)
        lua_memory.used += size - old_size;
    return q;
}

/* limit_memory(bytes): from here on Lua gets so much more, and then "not enough memory"; without
 * bytes: as much as there is. */
static int limit_memory(lua_State *L)
{
    void *state;
    lua_Alloc allocate = lua_getallocf(L, &state);
    if (allocate == bounded)
        lua_setallocf(L, lua_memory.allocate, lua_memory.state);
    if (lua_isnoneornil(L, 1))
        return 0;
    lua_memory.used = (size_t)1 << 62; /* more may be freed than is allocated */
    lua_memory.most = lua_memory.used + (size_t)luaL_checknumber(L, 1);
    lua_memory.allocate = lua_getallocf(L, &lua_memory.state);
    lua_setallocf(L, bounded, NULL);
    return 0;
}

static const luaL_Reg host[] = {
    {"embedded", embedded}, {"embedded_names", embedded_names},
    {"edit", edit_begin},   {"read_line", read_line},
    {"evaluate", evaluate}, {"limit_memory", limit_memory},
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

/* A closed descriptor of 0 to 2 would become that of the next file, and what is printed would go there. In
 * its place stands one that fails as it would have. */
static void keep_standard(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            _exit(1);
}

/* What was printed is not lost in silence: the exit status. */
static int end_standard(int status)
{
    int failed = ferror(stdout);
    errno = 0;
    if (!fflush(stdout) && !failed)
        return status;
    fprintf(stderr, "moonrock: standard output: could not be written%s%s\n", errno ? ": " : "",
            errno ? strerror(errno) : "");
    return status ? status : 1;
}

int main(int argc, char **argv)
{
    keep_standard();
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
    return end_standard(status);
}
