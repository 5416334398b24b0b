package main

import (
	"fmt"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// The sites. Failures of the evil one say nothing of the others; at the mixed one sound answers share connections with stray
// bytes. Only the proxies know where the sites are.
const (
	soundSite = "sound.test"
	mixedSite = "mixed.test"
	evilSite  = "evil.test"
	deadSite  = "dead.test" // nobody listens there
	// secureSite is sound and speaks TLS; it has the name that the certificates of httptest are for.
	secureSite = "example.com"
)

// hostileOrder is a job among which a third goes to hostile answers or is hostile itself.
func hostileOrder(w *world, n int) order {
	group, place := n/16, n%16
	switch place {
	case 3:
		return evilOrder(n, nth(testenv.HostileNames(testenv.HostileQuick), 2*group))
	case 9:
		return evilOrder(n, nth(testenv.HostileNames(testenv.HostileQuick), 2*group+1))
	case 5:
		return strayOrder(n, nth(testenv.HostileNames(testenv.HostileStray), group))
	case 1:
		return secureOrder(n)
	case 7, 13:
		return mixedOrder(n, nth(testenv.HostileNames(testenv.HostileSound), group))
	case 11:
		return rawOrder(w, n, nth(rawJobs(), group))
	case 14:
		switch group % 4 {
		case 0:
			return slowOrder(n, nth(testenv.HostileNames(testenv.HostileSlow), group/4), group%8 == 0)
		case 1:
			o := evilOrder(n, "handshake")
			o.job.URL = "https://" + evilSite + "/"
			return o
		}
		return evilOrder(n, "mutant")
	}
	return plainOrder(w, n)
}

func nth[T any](list []T, n int) T { return list[n%len(list)] }

// siteJob is a job for an answer of the hostile site, with the method and the body that the answer is for.
func siteJob(id, site, answer string) jobs.Job {
	method, body := testenv.HostileMethod(answer)
	return jobs.Job{ID: id, URL: "http://" + site + "/" + answer + "/" + id, Method: method, Body: body}
}

func mixedOrder(n int, answer string) order {
	id := fmt.Sprintf("mixed-%06d", n)
	return order{id: id, job: siteJob(id, mixedSite, answer), sound: true}
}

func strayOrder(n int, answer string) order {
	id := fmt.Sprintf("stray-%06d", n)
	return order{id: id, job: siteJob(id, mixedSite, answer)}
}

// evilOrder is a job that is given up soon. Half of them take as large a body as the worker allows.
func evilOrder(n int, answer string) order {
	id := fmt.Sprintf("evil-%06d", n)
	job := siteJob(id, evilSite, answer)
	attempts, base, jitter := 2, jobs.Duration(100*time.Millisecond), false
	job.Timeout, job.Retry = jobs.Duration(time.Second), &jobs.Override{MaxAttempts: &attempts, BaseDelay: &base, Jitter: &jitter}
	if n%2 == 0 {
		job.MaxBodyBytes = 64 << 10
	}
	return order{id: id, job: job}
}

// slowOrder is a job that is cancelled while it runs, or runs out of time.
func slowOrder(n int, answer string, cancelled bool) order {
	o := evilOrder(n, answer)
	o.cancelled = cancelled
	return o
}

func secureOrder(n int) order {
	id := fmt.Sprintf("secure-%06d", n)
	return order{id: id, job: jobs.Job{ID: id, URL: "https://" + secureSite + "/" + id}, sound: true}
}

// deniedURLs lead to loopback, in the spellings that a resolver, a proxy or a URL parser may know. Something listens at port.
func deniedURLs(port string) (out []string) {
	for _, host := range []string{
		"127.0.0.1", "[::1]", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "a.localhost", "LOCALHOST.", ".", "..", "*", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
		"0", "0.0.0.0", "[::]", "127.0.0.257", "6425673729", "169.254.169.254", "10.0.0.1", "[fe80::1]", "127.0.0.1.",
	} {
		out = append(out, "http://"+host+":"+port+"/")
	}
	return append(out, "//127.0.0.1:"+port+"/", "//.:"+port+"/", "http:///127.0.0.1:"+port+"/", `http:\\127.0.0.1:`+port+`\`, "http://a@127.0.0.1:"+port+"/")
}
