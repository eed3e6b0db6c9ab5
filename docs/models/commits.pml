/*
 * Tracker, rebalance and commit: two workers, one partition, four records.
 *
 * Rules. Each `d_step` is what one thread does at once, and the checker tries all orders of them. Trouble (a crash, an
 * expulsion, a move of the partition, a failed call, a commit that is refused or lost, a time-out that is too early)
 * takes one from `trouble_left`. Whatever else happens must lead on: each run has to end with all records committed.
 *
 * README.md says what each step is in the code, what is left out, and which macros break a rule on purpose.
 */

#define RECORDS 4
#define THREADS 2  /* per worker */
#define REQUESTS 2 /* commits of one worker that are under way */
#ifndef TROUBLE
#define TROUBLE 2
#endif
#ifndef MAX_UNCOMMITTED
#define MAX_UNCOMMITTED 2 /* records */
#endif

#define NONE 7 /* no offset, no worker, no request */

mtype:slice = { IDLE, RUNNING, BACK };
mtype:request = { UNUSED, SENT, TAKEN, REFUSED, LOST };
mtype:note = { NOTHING, ASSIGN, REVOKE };
mtype:phase = { STEP, FETCH, CLOSING, LAST_COMMIT };

/* A pool thread with its slice: one record of a lane, or two. */
typedef Thread {
    mtype:slice state = IDLE;
    byte first;   /* offset */
    byte records;
    byte handled; /* from the front */
    bool ended    /* so has the ownership that it was cut under */
}

/* An asynchronous commit. Number 0 was sent before number 1. */
typedef Request {
    mtype:request state = UNUSED;
    byte offset;
    bool valid;   /* sent by the owner, in the group's present generation */
    bool present; /* made for the tracker of the present ownership */
    bool late     /* a later one has overtaken it */
}

typedef Worker {
    bool up = true;
    mtype:phase phase = STEP;
    mtype:note note = NOTHING;   /* the callback that the next fetch runs */
    byte position;               /* where the client reads next */
    byte hand = NONE;            /* the record of a fetch that runs callbacks */

    bool owns;
    bool began;                  /* in this fetch */
    bool closing;
    byte closes_at;              /* offset */

    byte next;                   /* tracker: the next offset expected */
    byte open;                   /* tracker: bits of what is delivered and not done */
    byte done;                   /* tracker: bits of what is done */
    byte acknowledged;           /* tracker: the committed offset, as far as it is known here */

    bool dirty;                  /* committer: something is done and not sent */
    bool again;                  /* committer: to be sent though nothing moved */
    byte waited = NONE;          /* committer: number of the request in flight */
    mtype:request last = UNUSED; /* committer: the synchronous commit of a revoke */

    Thread thread[THREADS];
    Request request[REQUESTS]
}

Worker worker[2];
byte owner = NONE; /* as the group sees it */
byte committed;    /* the group's offset */
byte handled;      /* bits of the records that a handler returned for, wherever */
byte trouble_left = TROUBLE;

/* The promises: the checker reports the name of the one that is broken. */
hidden byte commit_safety, commit_monotone, lane_order, bounded_repeats, moves_repeat_nothing, nothing_starts_late,
            books_add_up;
#define promise(name, holds) name = (holds); assert(name)

#define W worker[w]
#define bit_of(at) (1 << (at))
#define below(at) (bit_of(at) - 1)
#define lane_of(at) (((at) == 1 || (at) == 2) -> 1 : 0)
#define records_of(lane) ((lane) == 1 -> 6 : 9) /* 1 and 2, or 0 and 3: within any two records lanes can overtake */
#define lowest(bits) (((bits) & 1) -> 0 : (((bits) & 2) -> 1 : (((bits) & 4) -> 2 : 3)))
#define end_of(bits) (((bits) & 8) -> 4 : (((bits) & 4) -> 3 : (((bits) & 2) -> 2 : (((bits) & 1) -> 1 : 0))))
#define count(bits) (((bits) & 1) + (((bits) >> 1) & 1) + (((bits) >> 2) & 1) + (((bits) >> 3) & 1))
#define larger(one, other) (((one) > (other)) -> (one) : (other))

#ifdef COMMIT_DELIVERED
#define committable (W.next)
#else
#define committable (W.open -> lowest(W.open) : W.next)
#endif
#define has_news (W.owns && (committable > W.acknowledged || W.again))
#define unused(nr) (W.request[nr].state == UNUSED)
#define answered(nr) (W.request[nr].state == TAKEN || W.request[nr].state == REFUSED)

#define offset_of(nr, number) ((number) == 0 -> W.thread[nr].first : 3 - W.thread[nr].first)
#define in_hand(nr) (W.thread[nr].state != IDLE && !W.thread[nr].ended)
#define holds(nr, lane) (in_hand(nr) && lane_of(W.thread[nr].first) == lane)
#define is_last(nr) (W.thread[nr].handled + 1 >= W.thread[nr].records)
#define number_reached(nr) (is_last(nr) -> W.thread[nr].records - 1 : W.thread[nr].handled)
#define end_of_slice(nr) (in_hand(nr) -> offset_of(nr, number_reached(nr)) + 1 : 0)
#define first_open(lane) lowest(W.open & records_of(lane))
#define unfinished (in_hand(0) || in_hand(1) || (W.open & below(W.closes_at)))

#ifdef COUNT_DISPATCHED
#define dispatched (count(W.done & ~below(W.acknowledged)) + (in_hand(0) -> 1 : 0) + (in_hand(1) -> 1 : 0))
#define within_bound(at) (dispatched < MAX_UNCOMMITTED)
#define slice_size(at) 1
#else
#define within_bound(at) ((at) < W.acknowledged + MAX_UNCOMMITTED)
#define slice_size(at) (((at) < 2 && allowed(3 - (at))) -> 2 : 1)
#endif
#define allowed(at) ((W.open & bit_of(at)) && (!W.closing || (at) < W.closes_at) && within_bound(at))
#define thread_idle (W.thread[0].state == IDLE || W.thread[1].state == IDLE)
#define may_start(lane) (W.owns && thread_idle && !holds(0, lane) && !holds(1, lane) \
    && (W.open & records_of(lane)) && allowed(first_open(lane)))

inline start_call(at) {
    promise(lane_order, !(records_of(lane_of(at)) & below(at) & ~handled))
}

inline forget(nr) {
    W.thread[nr].state = IDLE;
    W.thread[nr].first = 0; W.thread[nr].records = 0; W.thread[nr].handled = 0; W.thread[nr].ended = false
}

inline deliver() {
    promise(books_add_up, W.hand >= W.next);
    W.open = W.open | bit_of(W.hand);
    W.next = W.hand + 1
}

inline complete(at) {
    promise(books_add_up, (W.open | W.done) & bit_of(at));
    W.done = W.done | bit_of(at);
    W.open = W.open & ~bit_of(at);
    W.dirty = (committable > W.acknowledged) /* without news, to be dirty changes nothing */
}

inline complete_handled(nr) {
    if
    :: W.thread[nr].handled > 0 -> mark = offset_of(nr, 0); complete(mark)
    :: else
    fi;
    if
    :: W.thread[nr].handled > 1 -> mark = offset_of(nr, 1); complete(mark)
    :: else
    fi;
    mark = 0
}

inline dispatch(lane) {
    mark = first_open(lane);
    each = (W.thread[lane].state == IDLE -> lane : 1 - lane);
    W.thread[each].records = slice_size(mark);
    W.thread[each].first = mark;
    W.thread[each].state = RUNNING;
    start_call(mark);
    mark = 0; each = 0
}

inline settle(nr) {
    if
#ifdef COMPLETE_LATE
    :: W.owns -> complete_handled(nr)
#else
    :: !W.thread[nr].ended -> complete_handled(nr)
#endif
    :: else
    fi;
    forget(nr)
}

inline abandon() {
    if
    :: in_hand(0) -> complete_handled(0)
    :: else
    fi;
    if
    :: in_hand(1) -> complete_handled(1)
    :: else
    fi
}

inline take_from_client() {
    if
    :: W.owns && W.position < RECORDS -> W.hand = W.position; W.position++
    :: else
    fi
}

/* What came with a fetch in which the ownership began may belong to the one before: it is fetched again. */
inline admit() {
    if
#ifdef ADMIT_CROSSING
    :: W.owns && W.hand != NONE -> deliver()
#else
    :: W.owns && W.hand != NONE && !W.began -> deliver()
    :: W.owns && W.hand != NONE && W.began -> W.position = W.acknowledged
#endif
    :: else
    fi;
#ifndef REFETCH_FOR_EVER
    W.began = false;
#endif
    W.hand = NONE;
    W.phase = STEP
}

inline begin_ownership() {
    W.note = NOTHING;
    W.owns = true; W.began = true;
    W.next = committed; W.acknowledged = committed; W.position = committed
}

/* What nobody will look at is set to 0: fewer states. */
inline end_ownership() {
    W.owns = false; W.began = false; W.closing = false; W.closes_at = 0; W.position = 0;
    W.next = 0; W.open = 0; W.done = 0; W.acknowledged = 0; W.dirty = false; W.again = false;
    for (each : 0 .. THREADS - 1) {
        if
        :: W.thread[each].state == BACK && W.thread[each].handled == 0 -> forget(each)
        :: W.thread[each].state == BACK && W.thread[each].handled > 0 -> W.thread[each].ended = true
        :: W.thread[each].state == RUNNING -> W.thread[each].ended = true
        :: else
        fi
    }
    for (each : 0 .. REQUESTS - 1) {
        W.request[each].present = false;
        if
        :: answered(each) -> W.request[each].state = REFUSED; W.request[each].offset = 0; W.request[each].valid = false
        :: W.request[each].state == LOST -> W.request[each].offset = 0; W.request[each].valid = false
        :: else
        fi
    }
    each = 0
}

inline close_ownership() {
    W.note = NOTHING; W.phase = CLOSING; W.closing = true;
#ifndef CLOSE_AT_ONCE
    W.closes_at = larger(committable, end_of(W.done));
    W.closes_at = larger(W.closes_at, end_of_slice(0));
    W.closes_at = larger(W.closes_at, end_of_slice(1))
#endif
}

inline give_back() {
    end_ownership();
    W.phase = FETCH; W.last = UNUSED;
    owner = (owner == w -> NONE : owner)
}

inline commit_now() {
    if
    :: has_news -> W.phase = LAST_COMMIT; W.last = SENT
    :: else -> give_back()
    fi
}

inline send() {
    each = (unused(0) -> 0 : 1);
    W.request[each].state = SENT;
    W.request[each].offset = committable;
    W.request[each].valid = (owner == w);
    W.request[each].present = true;
    W.waited = each;
    W.dirty = false;
#ifdef ACKNOWLEDGE_ON_SEND
    W.acknowledged = committable;
#endif
    each = 0
}

inline send_last() {
    if
    :: has_news -> send()
    :: else
    fi
}

/* A request is over; a later one takes its number. */
inline remove(nr) {
    if
    :: nr == 0 ->
        W.request[0].state = W.request[1].state; W.request[0].offset = W.request[1].offset;
        W.request[0].valid = W.request[1].valid; W.request[0].present = W.request[1].present;
        W.request[0].late = W.request[1].late;
        W.waited = (W.waited == 1 -> 0 : NONE)
    :: else ->
        W.waited = (W.waited == 1 -> NONE : W.waited)
    fi;
    W.request[1].state = UNUSED; W.request[1].offset = 0;
    W.request[1].valid = false; W.request[1].present = false; W.request[1].late = false
}

#define is_older(nr) (W.request[nr].present && W.request[nr].offset < W.acknowledged)

/* An older offset may have been written over a newer one. */
inline hear(nr) {
    if
#ifndef TRUST_LATE_ANSWERS
    :: is_older(nr) -> W.again = true
#endif
    :: W.request[nr].present && !is_older(nr) && W.request[nr].state == TAKEN ->
        W.acknowledged = W.request[nr].offset;
        W.again = false;
        W.dirty = (committable > W.acknowledged)
#ifndef FORGET_REFUSED
    :: W.request[nr].present && !is_older(nr) && W.request[nr].state == REFUSED -> W.dirty = true
#endif
    :: !W.request[nr].present && W.owns -> W.again = true
    :: else
    fi;
    remove(nr)
}

inline give_up_waiting() {
    W.dirty = W.owns;
    each = W.waited;
    if
    :: W.request[each].state == LOST -> remove(each)
    :: else -> W.waited = NONE
    fi;
    each = 0
}

#define in_loop (W.up && W.phase == STEP)
#define in_revoke (W.up && W.phase == CLOSING)
#define called_back(what) (W.up && W.phase == FETCH && W.note == what)
#define last_commit (W.up && W.phase == LAST_COMMIT)
#define waits (in_loop && W.waited != NONE)

proctype Loop(byte w) {
    byte each, mark;
end:
    do
    :: d_step { in_loop && W.note == NOTHING && W.owns && W.position < RECORDS -> take_from_client(); admit() }
    :: d_step { in_loop && W.note != NOTHING -> take_from_client(); W.phase = FETCH }
    :: d_step { called_back(ASSIGN) -> begin_ownership() }
    :: d_step { called_back(REVOKE) -> close_ownership() }
    :: d_step { called_back(NOTHING) -> admit() }

    :: d_step { (in_loop || in_revoke) && W.thread[0].state == BACK -> settle(0) }
    :: d_step { (in_loop || in_revoke) && W.thread[1].state == BACK -> settle(1) }
    :: d_step { (in_loop || in_revoke) && may_start(0) -> dispatch(0) }
    :: d_step { (in_loop || in_revoke) && may_start(1) -> dispatch(1) }

    :: d_step { in_loop && W.waited == NONE && (W.dirty || W.again) && has_news && unused(1) -> send() }
    :: d_step { in_loop && answered(0) && !(W.request[0].late && answered(1)) -> hear(0) }
    :: d_step { in_loop && answered(1) && !(answered(0) && !W.request[0].late) -> hear(1) }
#ifndef WAIT_FOR_EVER
    :: d_step { waits && W.request[W.waited].state == LOST -> give_up_waiting() }
#endif
    :: d_step { waits && W.request[W.waited].state != LOST && trouble_left > 0 -> trouble_left--; give_up_waiting() }

    :: d_step { in_revoke && !unfinished ->
        promise(moves_repeat_nothing, !(W.done & ~below(committable)));
        commit_now() }
    :: d_step { in_revoke && unfinished && trouble_left > 0 -> trouble_left--; abandon(); commit_now() }
    :: d_step { in_revoke && unused(1) && trouble_left > 0 -> trouble_left--; abandon(); send_last(); give_back() }
    :: d_step { last_commit && W.last == REFUSED && owner == w -> W.last = UNUSED; W.phase = CLOSING }
    :: d_step { last_commit && W.last != SENT -> give_back() }
    od
}

/* One call returns; its thread looks whether the next one may start. */
inline finish_call(nr) {
    mark = offset_of(nr, W.thread[nr].handled);
    handled = handled | bit_of(mark);
#ifndef OVERTAKING
    promise(bounded_repeats, count(handled & ~below(committed)) <= MAX_UNCOMMITTED);
#endif
    mark = 3 - mark;
    if
    :: is_last(nr) -> W.thread[nr].state = BACK
#ifndef START_AFTER_END
    :: !is_last(nr) && W.thread[nr].ended -> W.thread[nr].state = BACK
#endif
    :: !is_last(nr) && !W.thread[nr].ended && W.closing && mark >= W.closes_at -> W.thread[nr].state = BACK
    :: else -> promise(nothing_starts_late, !W.thread[nr].ended); start_call(mark)
    fi;
    W.thread[nr].handled++;
    mark = 0
}

proctype Pool(byte w) {
    byte mark;
end:
    do
    :: d_step { W.thread[0].state == RUNNING -> finish_call(0) }
    :: d_step { W.thread[1].state == RUNNING -> finish_call(1) }
    :: d_step { W.thread[0].state == RUNNING && trouble_left > 0 -> trouble_left--; W.thread[0].state = BACK }
    :: d_step { W.thread[1].state == RUNNING && trouble_left > 0 -> trouble_left--; W.thread[1].state = BACK }
    od
}

inline write_offset(at, is_late) {
    promise(commit_safety, !(below(at) & ~handled));
    promise(commit_monotone, at >= committed || is_late);
    committed = at
}

inline answer(nr, word) {
    if
    :: W.up -> W.request[nr].state = word
    :: else -> remove(nr)
    fi
}

inline take(nr) {
    write_offset(W.request[nr].offset, W.request[nr].late);
    answer(nr, TAKEN)
}

inline take_last() {
    mark = committable;
    write_offset(mark, false);
    mark = 0;
    W.last = TAKEN
}

/* What nobody waits for ends with an error that does not tell whether it was taken. */
inline lose(nr) {
    if
    :: W.waited == nr -> W.request[nr].state = LOST
    :: else -> answer(nr, REFUSED)
    fi
}

#define arrives(nr) (W.request[nr].state == SENT && W.request[nr].valid)
#define outdated(nr) (W.request[nr].state == SENT && !W.request[nr].valid)
#define may_be_lost(nr) (W.request[nr].state == SENT || W.request[nr].state == TAKEN)
#define under_way (W.request[0].state == SENT || W.request[1].state == SENT)
#define last_arrives (W.last == SENT && owner == w)

/* What the group's coordinator does with commits, and the connection to it. */
proctype Coordinator(byte w) {
    byte mark;
end:
    do
    :: d_step { arrives(0) -> take(0) }
    :: d_step { arrives(1) && W.request[0].state != SENT -> take(1) }
    :: d_step { outdated(0) -> answer(0, REFUSED) }
    :: d_step { outdated(1) -> answer(1, REFUSED) }
    :: d_step { arrives(0) && trouble_left > 0 -> trouble_left--; answer(0, REFUSED) }
    :: d_step { arrives(1) && trouble_left > 0 -> trouble_left--; answer(1, REFUSED) }
    :: d_step { may_be_lost(0) && trouble_left > 0 -> trouble_left--; lose(0) }
    :: d_step { may_be_lost(1) && trouble_left > 0 -> trouble_left--; lose(1) }

    :: d_step { last_arrives && !under_way -> take_last() }
    :: d_step { W.last == SENT && owner != w -> W.last = REFUSED }
    :: d_step { last_arrives && trouble_left > 0 -> trouble_left--; W.last = REFUSED }
    :: d_step { (W.last == SENT || W.last == TAKEN) && trouble_left > 0 -> trouble_left--; W.last = LOST }
#ifdef OVERTAKING
    :: d_step { arrives(1) && W.request[0].state == SENT && trouble_left > 0 ->
        trouble_left--;
        W.request[0].late = true;
        take(1) }
    :: d_step { last_arrives && under_way && trouble_left > 0 ->
        trouble_left--;
        W.request[0].late = (W.request[0].state == SENT);
        W.request[1].late = (W.request[1].state == SENT);
        take_last() }
#endif
    od
}

#ifdef NO_FENCE
#define outdate(who, nr) skip
#else
#define outdate(who, nr) worker[who].request[nr].valid = false; worker[who].request[nr].offset = 0
#endif

inline assign() {
    owner = w;
    W.note = ASSIGN;
    for (each : 0 .. REQUESTS - 1) { outdate(0, each); outdate(1, each) }
    each = 0
}

/* A process that has ended is started anew; one that lives hears of it, unless it is just giving the partition back. */
inline expel() {
    owner = NONE;
    W.note = NOTHING;
    for (each : 0 .. REQUESTS - 1) { outdate(w, each) }
    each = 0;
    if
    :: !W.up -> remove(1); remove(0); W.up = true
    :: W.up && W.owns && (W.phase == STEP || W.phase == FETCH) -> end_ownership()
    :: else
    fi
}

/* What was sent may still arrive; nobody hears the answer. */
inline crash() {
    end_ownership();
    W.up = false; W.phase = STEP; W.note = NOTHING; W.hand = NONE; W.last = UNUSED;
    forget(0);
    forget(1);
    if
    :: W.request[1].state != SENT || !W.request[1].valid -> remove(1)
    :: else
    fi;
    if
    :: W.request[0].state != SENT || !W.request[0].valid -> remove(0)
    :: else
    fi;
    W.waited = NONE
}

#define between_callbacks (W.up && W.note == NOTHING && (W.phase == STEP || W.phase == FETCH))
#define first_time (trouble_left == TROUBLE) /* the workers are alike: the first owner is number 0 */

/* The group's membership, and what befalls a process. */
proctype Group(byte w) {
    byte each;
end:
    do
    :: d_step { owner == NONE && between_callbacks && !W.owns && (w == 0 || !first_time) -> assign() }
    :: d_step { owner == w && between_callbacks && W.owns && trouble_left > 0 -> trouble_left--; W.note = REVOKE }
    :: d_step { owner == w && W.up && trouble_left > 0 -> trouble_left--; expel() }
    :: d_step { owner == w && !W.up -> expel() }
    :: d_step { owner == w && W.up && trouble_left > 0 -> trouble_left--; crash() }
    od
}

init {
    atomic {
        run Loop(0); run Pool(0); run Coordinator(0); run Group(0);
        run Loop(1); run Pool(1); run Coordinator(1); run Group(1)
    }
    committed == RECORDS /* a run that stops before that is a deadlock */
}

ltl everything_is_committed { <> (committed == RECORDS) }
