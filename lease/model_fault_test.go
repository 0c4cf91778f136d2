package lease_test

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/gpulease/gpulease/lambda/lambdatest"
)

// faults are the failures of the cloud. Each ends by itself: after some calls, or
// after some time.
var faults = map[string]func(r *rapid.T) lambdatest.Fault{
	"no capacity": func(r *rapid.T) lambdatest.Fault {
		return launchFault(lambdatest.Fault{Count: 1 + uniform(r, 3), NoCapacity: true})
	},
	"launch denied": func(r *rapid.T) lambdatest.Fault {
		return launchFault(lambdatest.Fault{Code: pick(r, lambdatest.CodeQuotaExceeded, lambdatest.CodeAccountInactive, lambdatest.CodeInvalidKey)})
	},
	"launch lost": func(r *rapid.T) lambdatest.Fault { return launchFault(lostAnswer(r)) },
	"launch undone": func(r *rapid.T) lambdatest.Fault {
		return launchFault(pick(r, lambdatest.Fault{Cut: lambdatest.CutBefore}, lambdatest.Fault{Status: 500}, lambdatest.Fault{Status: 429}, lambdatest.Fault{Hang: -1}, lambdatest.Fault{Status: 502, Body: lambdatest.BodyHTML}))
	},
	"launch late": func(r *rapid.T) lambdatest.Fault {
		f := pick(r, lambdatest.Fault{}, lostAnswer(r))
		f.LateBy = span(r, 5*time.Second, 3*time.Minute)
		return launchFault(f)
	},
	"launch very late": func(r *rapid.T) lambdatest.Fault {
		f := pick(r, lambdatest.Fault{}, lostAnswer(r))
		f.LateBy = 11 * time.Minute
		return launchFault(f)
	},
	"launch unlisted": func(r *rapid.T) lambdatest.Fault {
		f := pick(r, lambdatest.Fault{}, lostAnswer(r))
		f.UnlistedFor = pick(r, span(r, 5*time.Second, 90*time.Second), span(r, time.Minute, 5*time.Minute))
		return launchFault(f)
	},
	"tags dropped": func(r *rapid.T) lambdatest.Fault {
		return launchFault(pick(r, lambdatest.Fault{DropTags: true}, withTagsDropped(lostAnswer(r))))
	},
	"price rise": func(r *rapid.T) lambdatest.Fault {
		return launchFault(lambdatest.Fault{PriceCents: int64(pick(r, 199, 450, 999))})
	},
	"never healthy": func(r *rapid.T) lambdatest.Fault { return launchFault(lambdatest.Fault{NeverHealthy: true}) },
	"slow boot": func(r *rapid.T) lambdatest.Fault {
		return launchFault(lambdatest.Fault{Boot: span(r, 8*time.Minute, 40*time.Minute)})
	},
	"dies": func(r *rapid.T) lambdatest.Fault {
		return launchFault(lambdatest.Fault{DieAfter: span(r, time.Second, 20*time.Minute), DieAs: pick(r, lambdatest.Unhealthy, lambdatest.Terminated, lambdatest.Preempted)})
	},
	"list fails": func(r *rapid.T) lambdatest.Fault {
		f := pick(r, lambdatest.Fault{Status: 500}, lambdatest.Fault{Status: 429, RetryAfter: 10 * time.Second}, lambdatest.Fault{Status: 429, Body: lambdatest.BodyHTML},
			lambdatest.Fault{Status: 403, Body: lambdatest.BodyHTML}, lambdatest.Fault{Cut: lambdatest.CutMid}, lambdatest.Fault{Hang: -1}, lambdatest.Fault{Code: lambdatest.CodeInvalidKey})
		f.Op = lambdatest.OpListInstances
		return bounded(r, f, 8, 15*time.Minute)
	},
	"list empty": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: lambdatest.OpListInstances, Omit: "*", Count: 1 + uniform(r, 4)}
	},
	"stale": func(r *rapid.T) lambdatest.Fault { // see also drawFault
		return lambdatest.Fault{Op: lambdatest.OpListInstances, Omit: "*", Until: span(r, 10*time.Second, 4*time.Minute)}
	},
	"list slow": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: lambdatest.OpListInstances, Delay: span(r, 2*time.Second, 44*time.Second), Count: 1 + uniform(r, 6)}
	},
	"all fails": func(r *rapid.T) lambdatest.Fault {
		return bounded(r, pick(r, lambdatest.Fault{Op: "*", Status: 503}, lambdatest.Fault{Op: "*", Cut: lambdatest.CutBefore}, lambdatest.Fault{Op: "*", Cut: lambdatest.CutAfter}), 12, 20*time.Minute)
	},
	"get fails": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: lambdatest.OpGetInstance, Count: 1 + uniform(r, 4), Status: pick(r, 500, 404)}
	},
	"end ignored": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: lambdatest.OpTerminate, Ignore: true, Count: pick(r, 1, 2, 3, 6)}
	},
	"end fails": func(r *rapid.T) lambdatest.Fault {
		f := pick(r, lambdatest.Fault{Status: 500}, lambdatest.Fault{Status: 429}, lambdatest.Fault{Hang: -1}, lambdatest.Fault{Cut: lambdatest.CutBefore})
		f.Op, f.Count = lambdatest.OpTerminate, 1+uniform(r, 8)
		return f
	},
	"end lost": func(r *rapid.T) lambdatest.Fault {
		f := lostAnswer(r)
		f.Op, f.Count = lambdatest.OpTerminate, 1
		return f
	},
	"end stuck": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: lambdatest.OpTerminate, Stuck: span(r, 2*time.Minute, 20*time.Minute), Count: 1}
	},
	"date once": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: pick(r, "*", lambdatest.OpListInstances), Count: 1, ClockSkew: wrongDate(r)}
	},
	"date long": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: pick(r, "*", lambdatest.OpListInstances), Until: span(r, 10*time.Second, 30*time.Minute), ClockSkew: wrongDate(r)}
	},
	"key lost": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: lambdatest.OpAddKey, Cut: pick(r, lambdatest.CutAfter, lambdatest.CutBefore), Count: 1}
	},
	"key stays": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: pick(r, lambdatest.OpDeleteKey, lambdatest.OpListKeys), Status: 500, Count: 1 + uniform(r, 20)}
	},
	"types fail": func(r *rapid.T) lambdatest.Fault {
		return lambdatest.Fault{Op: lambdatest.OpListTypes, Status: 500, Count: 1 + uniform(r, 8)}
	},
}

var faultNames = func() (names []string) {
	for name := range faults {
		names = append(names, name)
	}
	slices.Sort(names)
	// These are what people lose money by.
	return append(names, "launch lost", "launch lost", "launch late", "launch unlisted", "end fails", "end ignored", "list fails")
}()

func drawFault(r *rapid.T) (string, lambdatest.Fault) {
	name := pick(r, faultNames...)
	return name, faults[name](r)
}

func launchFault(f lambdatest.Fault) lambdatest.Fault {
	f.Op = lambdatest.OpLaunch
	f.Count = max(f.Count, 1)
	return f
}

// lostAnswer is an answer that is lost after the work was done.
func lostAnswer(r *rapid.T) lambdatest.Fault {
	return pick(r, lambdatest.Fault{Cut: lambdatest.CutAfter}, lambdatest.Fault{Cut: lambdatest.CutMid}, lambdatest.Fault{Hang: -1, AfterWork: true}, lambdatest.Fault{Status: 500, AfterWork: true},
		lambdatest.Fault{Status: 502, Body: lambdatest.BodyHTML, AfterWork: true}, lambdatest.Fault{Status: 429, AfterWork: true}, lambdatest.Fault{Status: 403, Body: lambdatest.BodyText, AfterWork: true})
}

func withTagsDropped(f lambdatest.Fault) lambdatest.Fault {
	f.DropTags = true
	return f
}

// bounded ends a fault after some calls or some time.
func bounded(r *rapid.T, f lambdatest.Fault, calls int, long time.Duration) lambdatest.Fault {
	if rapid.Bool().Draw(r, "by calls") {
		f.Count = 1 + uniform(r, calls)
	} else {
		f.Until = span(r, time.Second, long)
	}
	return f
}

// wrongDate is how wrong a Date header is.
func wrongDate(r *rapid.T) time.Duration {
	d := pick(r, span(r, 2*time.Minute, 20*time.Minute), span(r, time.Hour, 26*time.Hour))
	return pick(r, d, -d)
}
