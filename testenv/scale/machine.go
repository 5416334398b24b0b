package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticks is how many of the kernel's units of CPU time a second has, on all systems that Go runs on.
const ticks = 100

// usage is what was used until a moment.
type usage struct {
	at            time.Time
	cpu           time.Duration // of some processes
	busy, machine time.Duration // of all processors of the machine
}

func usageOf(pids ...int) (u usage) {
	u.at = time.Now()
	for _, pid := range pids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // a process that has ended counts nothing
		// The name of the program may hold blanks; user and system time are the 12th and 13th field behind it.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) > 12 {
			u.cpu += inTicks(fields[11]) + inTicks(fields[12])
		}
	}
	text, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(strings.TrimPrefix(first, "cpu ")) {
		if i < 8 { // what follows is counted in these already
			u.machine += inTicks(field)
			if i != 3 && i != 4 { // idle, and waiting for a disk
				u.busy += inTicks(field)
			}
		}
	}
	return u
}

func inTicks(field string) time.Duration {
	n, _ := strconv.ParseInt(field, 10, 64)
	return time.Duration(n) * time.Second / ticks
}

// cores is how many processors were busy since before, on the average.
func (u usage) cores(before usage) float64 {
	return (u.cpu - before.cpu).Seconds() / u.at.Sub(before.at).Seconds()
}

// percent is how busy the whole machine was.
func (u usage) percent(before usage) float64 {
	return 100 * float64(u.busy-before.busy) / float64(max(1, u.machine-before.machine))
}

// mebibytes is the memory that a process holds now.
func mebibytes(pid int) (n int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, line, _ := strings.Cut(string(text), "VmRSS:")
	_, _ = fmt.Sscan(line, &n)
	return n >> 10
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
