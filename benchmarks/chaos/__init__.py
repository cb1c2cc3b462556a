"""`make chaos`: compare requests whose engine is killed with the same requests undisturbed."""
