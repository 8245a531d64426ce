#!/bin/sh
# Coverage-guided fuzzing of the engine's parts (tests/fuzz/_targets.pyx) with clang's libFuzzer:
#
#   fuzz.sh [TARGET...]          frames, passing, supers, ipip, device, opened, linked, old: FUZZ_SECONDS (60) each
#   fuzz.sh --keep [TARGET...]   add to the committed corpus what was found and reaches code that nothing in it does
#
# FUZZ_RUNS: so many executions of each instead of a time. FUZZ_SANITIZE=0: without the address sanitizer, for long
# runs; the pages behind each input and output catch a step too far either way. What is found stays in build/fuzz/.
set -eu
cd "$(dirname "$0")/.."
scripts/bootstrap.sh fuzzer

keep=
if [ "${1-}" = --keep ]; then
    keep=1
    shift
fi
case ${FUZZ_SANITIZE-1} in
0) kind=bare sanitizers= ;;
*) kind=asan sanitizers=,address ;;
esac
folder=build/fuzz
python=.venv/bin/python
mkdir -p $folder/$kind

if [ ! -e $folder/$kind/made ] ||
    [ -n "$(find candy/_fastpath.pyx candy/engine tests/fuzz/_targets.pyx "$0" -newer $folder/$kind/made)" ]; then
    echo "build the fuzzers ($kind)"
    "$python" -m cython -3 -I candy -X boundscheck=False,wraparound=False,cdivision=True,initializedcheck=False \
        tests/fuzz/_targets.pyx -o $folder/$kind/targets.c
    # Nothing of Python runs in them, so its glue needs no feedback, which is looked through after every execution.
    printf 'src:*\nfun:__pyx_f_*\nfun:fuzz_*\nfun:candy_*\n' >$folder/$kind/covered
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    libraries=$("$python" -c 'if True:
        from sysconfig import get_config_var as of
        print("-L" + of("LIBDIR"), "-L" + of("LIBPL"), "-Wl,-rpath," + of("LIBDIR"), "-lpython" + of("LDVERSION"))
        print(of("LIBS"), of("SYSLIBS"))')
    # -w: Cython's C makes clang talk of what gcc takes for granted; make build has gcc's warnings.
    clang -O2 -g -w -fno-omit-frame-pointer -fno-strict-aliasing -DCYTHON_WITHOUT_ASSERTIONS=1 \
        -fsanitize=fuzzer-no-link$sanitizers -fsanitize-coverage-allowlist=$folder/$kind/covered \
        -I"$include" -Icandy -c $folder/$kind/targets.c -o $folder/$kind/targets.o
    for target in frames passing supers ipip device opened linked old; do
        # shellcheck disable=SC2086  # several words
        clang -fsanitize=fuzzer$sanitizers $folder/$kind/targets.o -o $folder/$kind/$target \
            -Wl,--defsym=LLVMFuzzerTestOneInput=fuzz_$target -Wl,--wrap=write,--wrap=writev $libraries
    done
    touch $folder/$kind/made
fi

# Counted runs are for volume: there a comparison half met is no discovery, and each is over sooner.
if [ "${FUZZ_RUNS-}" ]; then
    limits="-runs=$FUZZ_RUNS -max_total_time=${FUZZ_SECONDS-0} -entropic=0"
else
    limits="-max_total_time=${FUZZ_SECONDS-60} -use_value_profile=1"
fi
[ $# -gt 0 ] || set -- frames passing supers ipip device opened linked old
for target in "$@"; do
    found=$folder/found/$target
    corpus=tests/fuzz/corpus/$target
    mkdir -p "$found"
    if [ "$keep" ]; then
        $folder/$kind/"$target" -set_cover_merge=1 -use_counters=0 -max_len=1000 "$corpus" "$found" >$folder/"$target".log 2>&1
        echo "$target: $(find "$corpus" -type f | wc -l) inputs"
        continue
    fi
    echo "fuzz $target"
    # shellcheck disable=SC2086  # several options
    if ! $folder/$kind/"$target" $limits -max_len=4096 -timeout=10 -print_final_stats=1 \
        -artifact_prefix=$folder/"$target"- "$found" "$corpus" >$folder/"$target".log 2>&1; then
        tail -n 40 $folder/"$target".log >&2
        echo "fuzz.sh: $target failed: see $folder/$target.log; the input lies beside it" >&2
        exit 1
    fi
    sed -n 's/^stat::number_of_executed_units: */  executions: /p; s/^stat::average_exec_per_sec: */  a second: /p' \
        $folder/"$target".log
done
