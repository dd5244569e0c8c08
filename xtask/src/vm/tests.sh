# Runs each test in a process of its own, one after the other: they share the one kernel.
set -- $(cat /words)
for name in $(/program --list "$@" | sed -n 's/: test$//p'); do
    echo "vm: test $name"
    # Two threads, or libtest would print the name of the test in front of the first line that the test prints.
    timeout -s KILL 120 /program --exact "$name" --nocapture --test-threads=2 2>&1
    echo "vm: exit $?"
done
