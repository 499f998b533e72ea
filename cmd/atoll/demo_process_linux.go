package main

import "syscall"

// dieWithParent gives a child a process group, so that Ctrl-C on the terminal
// reaches only this process, and lets the kernel end it when this process dies.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
