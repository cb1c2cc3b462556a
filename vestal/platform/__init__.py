"""Everything that differs between machines: memory, ports, processes, commands, the kernel log, sleep."""
