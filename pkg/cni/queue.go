package cni

import (
	"context"
	"sync"
	"time"
)

// Retries of a failed Prepare or Forget begin with the first and double up to the
// last.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// queue holds, for each pod, what is to be done with it. What is asked last
// counts: a pod that goes before it was prepared is not prepared.
type queue struct {
	mu      sync.Mutex // guards the rest
	work    map[string]job
	order   []string
	asked   uint64            // how often anything was
	last    map[string]uint64 // by pod UID: which job was asked for last, while it is not done
	arrived chan struct{}     // holds a token while order may not be empty
}

type job struct {
	pod    Pod
	gone   bool
	pause  time.Duration // before the next attempt, should this one fail
	number uint64        // of all that was asked
}

func newQueue() *queue {
	return &queue{work: make(map[string]job), last: make(map[string]uint64), arrived: make(chan struct{}, 1)}
}

func (q *queue) put(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked++
	j.number = q.asked
	q.last[j.pod.UID] = j.number
	q.add(j)
}

// add is put without its being news; q.mu is held.
func (q *queue) add(j job) {
	if _, waiting := q.work[j.pod.UID]; !waiting {
		q.order = append(q.order, j.pod.UID)
	}
	q.work[j.pod.UID] = j
	q.ring()
}

// again puts a failed job back, unless something else was asked for that pod since then,
// be it done already.
func (q *queue) again(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last[j.pod.UID] == j.number {
		q.add(j)
	}
}

// done notes that a job needs no other attempt.
func (q *queue) done(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last[j.pod.UID] == j.number {
		delete(q.last, j.pod.UID)
	}
}

func (q *queue) ring() {
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

func (q *queue) take() (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return job{}, false
	}
	uid := q.order[0]
	q.order = q.order[1:]
	j := q.work[uid]
	delete(q.work, uid)
	if len(q.order) > 0 {
		q.ring() // for the next worker
	}
	return j, true
}

// Bound says that a pod is bound to this node: it is prepared soon. It does
// not block, and may be called again for the same pod.
func (a *Agent) Bound(p Pod) { a.preparing.put(job{pod: p, pause: firstRetry}) }

// Gone says that a pod has been deleted or has completed: see Forget. It does not
// block.
func (a *Agent) Gone(p Pod) { a.preparing.put(job{pod: p, gone: true, pause: firstRetry}) }

// Run prepares and forgets what Bound and Gone have said, until the context ends.
func (a *Agent) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range a.config.Workers {
		workers.Go(func() { a.work(ctx) })
	}
	workers.Wait()
}

func (a *Agent) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.preparing.arrived:
		}
		for ctx.Err() == nil && a.Turn(ctx) {
		}
	}
}

// Turn does one thing of what Bound and Gone have said, and reports whether there
// was any: Run, for a caller that decides itself when things happen.
func (a *Agent) Turn(ctx context.Context) bool {
	j, ok := a.preparing.take()
	if ok {
		a.do(ctx, j)
	}
	return ok
}

func (a *Agent) do(ctx context.Context, j job) {
	call, cancel := context.WithTimeoutCause(ctx, a.config.Timeout, errTimeout)
	defer cancel()
	var err error
	if j.gone {
		err = a.Forget(call, j.pod.UID)
	} else {
		err = a.Prepare(call, j.pod)
	}
	if err == nil || ctx.Err() != nil {
		a.preparing.done(j)
		return
	}
	a.log.Warn("a pod could not be prepared or forgotten, trying again", "pod", j.pod.String(), "gone", j.gone,
		"after", j.pause, "err", err)
	next := j
	next.pause = min(2*j.pause, lastRetry)
	time.AfterFunc(j.pause, func() { a.preparing.again(next) })
}
