"""The cost model inside other people's compilers and runtimes; each needs an extra of its own."""
