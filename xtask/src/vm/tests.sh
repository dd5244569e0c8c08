# Runs each test in a process of its own, one after the other: they share the one kernel. A line of /words is a way to watch
# the kernel, and a test.
while read -r hooks name; do
    echo "vm: test $hooks $name"
    # Two threads, or libtest would print the name of the test in front of the first line that the test prints.
    ROSENTRY_TEST_HOOKS=$hooks timeout -s KILL 600 /program --exact "$name" --nocapture --test-threads=2 2>&1 </dev/null
    echo "vm: exit $?"
done </words
