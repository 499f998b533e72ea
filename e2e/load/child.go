package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/global"
	"github.com/atoll-mesh/atoll/zone"
)

// serveChild is the main function of a server process. It ends when its
// standard input does, so that it never outlives the run.
func serveChild(kind, path string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	body, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	commands := make(chan string)
	go func() {
		defer cancel()
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			select {
			case commands <- in.Text():
			case <-ctx.Done():
			}
		}
	}()
	switch kind {
	case "global":
		var c global.Config
		if err := json.Unmarshal(body, &c); err != nil {
			return err
		}
		return global.Run(ctx, c, "load", os.Stdout)
	case "zone":
		var c zone.Config
		if err := json.Unmarshal(body, &c); err != nil {
			return err
		}
		zone.Process()
		return zone.Run(ctx, c, "load", os.Stdout)
	}
	var c comparatorConfig
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	return serveComparator(ctx, kind, c, commands, os.Stdout)
}

// child is a server process.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	ended chan struct{}
	said  server.Said
}

// start runs a server with a configuration.
func start(kind, path string, config any) (*child, error) {
	body, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, body, 0o600); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, "child", kind, path), ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.said, os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		err := c.cmd.Wait()
		c.said.End(fmt.Errorf("the process ended: %v", err))
		close(c.ended)
	}()
	return c, nil
}

// tell sends a command to a comparator.
func (c *child) tell(line string) error {
	_, err := io.WriteString(c.in, line+"\n")
	return err
}

// stopTime is how long a process may take to end.
const stopTime = 20 * time.Second

func (c *child) stop() {
	c.in.Close()
	select {
	case <-c.ended:
	case <-time.After(stopTime):
		c.cmd.Process.Kill()
		<-c.ended
	}
}

// usage is what a process has used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// clockTick is USER_HZ, in which Linux gives times (proc_pid_stat(5)); it is
// 100 on every architecture that Go supports.
const clockTick = 100

func (c *child) usage() (u usage) {
	dir := "/proc/" + strconv.Itoa(c.cmd.Process.Pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the third on: state, …
	for _, i := range []int{11, 12} {
		if len(fields) > i {
			n, _ := strconv.ParseInt(fields[i], 10, 64)
			u.cpu += time.Duration(n) * time.Second / clockTick
		}
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if name == "VmRSS" {
			u.rss = n << 10
		}
	}
	return u
}
