#!/bin/sh
# `make bench`: see tests/bench/README.md for what it prints and the variables it takes.
set -eu
cd "$(dirname "$0")/../.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

if [ -z "${DATA:-}" ]; then
    for format in bin libsvm libffm; do
        ./moonrock datasets/synthetic.lua --seed 42 --train "${ROWS:-1000000}" --test "${TEST_ROWS:-100000}" \
            --format $format --out "$dir"
    done
    DATA=$dir
fi
${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O3 -march=native -ffast-math -o "$dir/limit" \
    $(pkg-config --cflags openblas) tests/bench/limit.c $(pkg-config --libs openblas) -lpthread -lm
./moonrock tests/bench/run.lua --data "$DATA" --rows "${ROWS:-1000000}" --limit "$dir/limit" \
    --out "${OUT:-build/bench.json}" --last tests/bench/results.json --repeat "${REPEAT:-3}" \
    --threads "${THREADS:-2}" --batch "${BATCH:-1024}" \
    --models "${MODELS:-lr fm ffm wide_deep deepfm dcnv2}" ${PEER:+--peer}
[ -z "${KEEP:-}" ] || cp "${OUT:-build/bench.json}" tests/bench/results.json

# Tables that grow within memory, such as GROWTH="1e6 1e7 5e7".
if [ -n "${GROWTH:-}" ]; then
    echo
    ./moonrock tests/bench/growth.lua --limit "$dir/limit" --rows "$GROWTH" --threads "${THREADS:-2}" \
        --out build/bench-growth.json
fi

# Tables larger than memory, and what RocksDB alone takes for the same rows; LARGE=0 leaves them out.
[ "${LARGE:-1}" = 0 ] && exit
${CC:-cc} -std=gnu11 -O2 -o "$dir/plain" $(pkg-config --cflags rocksdb 2>/dev/null) tests/bench/plain.c \
    $(pkg-config --libs rocksdb 2>/dev/null || echo -lrocksdb) -lpthread
echo
./moonrock tests/bench/large.lua --dir "$dir/large" --plain "$dir/plain" --threads "${THREADS:-2}" \
    --keys "${KEYS:-2000000}" --models "${LARGE_MODELS:-fm wide_deep}" --out build/bench-large.json
