"""The virtual machine: probe, QEMU, boot assets, base VMs."""
