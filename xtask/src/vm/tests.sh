# Runs each test in a process of its own, one after the other: they share the one kernel. Once for each way to watch it.
set -- $(cat /words)
for hooks in tracepoint fexit; do
    for name in $(/program --list "$@" | sed -n 's/: test$//p'); do
        echo "vm: test $hooks $name"
        # Two threads, or libtest would print the name of the test in front of the first line that the test prints.
        ROSENTRY_TEST_HOOKS=$hooks timeout -s KILL 170 /program --exact "$name" --nocapture --test-threads=2 2>&1
        echo "vm: exit $?"
    done
done
