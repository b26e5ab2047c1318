#!/bin/sh
# Lines and branches that a build with COVERAGE=1 in the directory $1 has reached, by file of the runtime.
# A file that is compiled for several instruction sets counts by the best of them.
cd "$(dirname "$0")/../.." || exit 1
find "$1" -name '*.gcda' | while read -r data; do
    gcov --branch-probabilities --no-output --object-file "$data" "$data" 2>/dev/null
done | awk '
    /^File / { file = $2; gsub(/\x27/, "", file) }
    /^Lines executed/ { split($0, part, /[:%]| of /); lines = part[2]; n = part[4] }
    /^Branches executed/ { next }
    /^Taken at least once/ { split($0, part, /[:%]| of /); branches = part[2]
        if (file ~ /^runtime\/.*\.c$/ && (!(file in best) || lines > best[file])) {
            best[file] = lines; count[file] = n; taken[file] = branches } }
    END { for (file in best) { printf "%-32s %6.1f %% of %5d lines  %6.1f %% of branches taken\n", file, best[file],
              count[file], taken[file]; sum += best[file] * count[file]; all += count[file] }
          if (all) printf "%-32s %6.1f %% of %5d lines\n", "~ all", sum / all, all }' | sort
