"""What goes wrong around a service, and what it answers meanwhile: poison, callers, disks, clocks, starts and stops."""
