"""The inside of the sandbox: what a fresh interpreter does between its start and the code it is to run.

Only the standard library is used here, because these modules are imported by an
isolated interpreter that knows no other package (`python -I -S`); and little of that, because
every run pays for it: `typing` alone takes as long as the rest. `start` is the way
in. It opens namespaces, supervises, and locks the child in with `landlock` and `seccomp`;
`harness` then runs the code and its tests.
"""
