package postgrestest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

const (
	nobody = 65534
	// capDACOverride lets the unprivileged user read files of the tests, such as
	// certificates, that only root may. See capabilities(7).
	capDACOverride = 1
)

// unprivileged starts a process that ends with this one,
// and as another user if this one is root, as whom PostgreSQL refuses to run.
func unprivileged() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		a.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		a.AmbientCaps = []uintptr{capDACOverride}
	}
	return a
}

// give makes a directory the unprivileged user's.
func give(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(dir, nobody, nobody)
}

// stat is the state of a process and its parent; see proc_pid_stat(5).
func stat(pid string) (state byte, parent int) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	_, rest, ok := bytes.Cut(text, []byte(") "))
	fields := bytes.Fields(rest)
	if err != nil || !ok || len(fields) < 2 {
		return 'X', 0
	}
	parent, _ = strconv.Atoi(string(fields[1]))
	return fields[0][0], parent
}

// reachable reports whether the unprivileged user may run what is in the
// directory.
func reachable(dir string) bool {
	for up := dir; os.Geteuid() == 0 && up != "/"; up = filepath.Dir(up) {
		if info, err := os.Stat(up); err != nil || info.Mode()&1 == 0 {
			return false
		}
	}
	return true
}

func children(pid int) (out []int) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if _, parent := stat(filepath.Base(p)); parent == pid {
			child, _ := strconv.Atoi(filepath.Base(p))
			out = append(out, child)
		}
	}
	return out
}

// alive reports whether a process still holds anything.
func alive(pid int) bool {
	state, _ := stat(strconv.Itoa(pid))
	return state != 'X' && state != 'Z'
}
