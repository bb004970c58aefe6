//! The life of one session as a pure machine.
//!
//! A session begins when its app runs. It has no stream, one that is prepared, or one that runs; streams are numbered, so
//! that news of an old one cannot be taken for news of the new one. `H` is whatever the executor must hold to stop a
//! running stream; the machine hands every `H` it was given back in exactly one [`Action`].

use crate::stream::EndReason;

/// Counts the streams of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamNumber(pub(super) u64);

/// Where a session stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State<H> {
    /// The app runs, nobody watches.
    Idle,
    /// A stream is open and waits for its client.
    Prepared(StreamNumber),
    /// A stream runs.
    Streaming(StreamNumber, H),
    /// All is over.
    Ended(EndReason),
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<H> {
    /// A stream was opened.
    Prepared(StreamNumber),
    /// Its door gave the opened stream back without starting it.
    Released(StreamNumber),
    /// Its threads run.
    Started(StreamNumber, H),
    /// Its threads ended by themselves or were told to by the door.
    StreamEnded(StreamNumber),
    /// The client wants a new stream in place of the one it may have.
    Replace,
    /// The session shall end, or its app or display has ended.
    End(EndReason),
}

/// What the executor must do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<H> {
    /// Stop this stream with this reason and wait for its threads.
    Stop(H, EndReason),
    /// Wait for the threads of a stream that has ended.
    Join(H),
    /// Stop the app and close the output.
    TearDown,
}

/// One step.
pub(super) fn step<H>(state: State<H>, event: Event<H>) -> (State<H>, Vec<Action<H>>) {
    match (state, event) {
        // After the end only threads that started too late need care.
        (State::Ended(reason), Event::Started(_, handle)) => {
            let stop = Action::Stop(handle, reason.clone());
            (State::Ended(reason), vec![stop])
        }
        (State::Ended(reason), _) => (State::Ended(reason), vec![]),

        (State::Streaming(_, handle), Event::End(reason)) => {
            (State::Ended(reason.clone()), vec![Action::Stop(handle, reason), Action::TearDown])
        }
        (_, Event::End(reason)) => (State::Ended(reason), vec![Action::TearDown]),

        (State::Streaming(_, handle), Event::Prepared(number)) => {
            (State::Prepared(number), vec![Action::Stop(handle, EndReason::Replaced)])
        }
        (_, Event::Prepared(number)) => (State::Prepared(number), vec![]),

        (State::Streaming(_, handle), Event::Replace) => {
            (State::Idle, vec![Action::Stop(handle, EndReason::Replaced)])
        }
        (_, Event::Replace) => (State::Idle, vec![]),

        (State::Prepared(waiting), Event::Started(number, handle)) if waiting == number => {
            (State::Streaming(number, handle), vec![])
        }
        // The stream that started is not the one that is waited for: it was replaced, or it ended before this news came.
        (state, Event::Started(_, handle)) => {
            (state, vec![Action::Stop(handle, EndReason::Replaced)])
        }

        (State::Prepared(waiting), Event::Released(number) | Event::StreamEnded(number))
            if waiting == number =>
        {
            (State::Idle, vec![])
        }
        (State::Streaming(running, handle), Event::StreamEnded(number)) if running == number => {
            (State::Idle, vec![Action::Join(handle)])
        }
        (state, Event::Released(_) | Event::StreamEnded(_)) => (state, vec![]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ONE: StreamNumber = StreamNumber(1);
    const TWO: StreamNumber = StreamNumber(2);

    #[test]
    fn a_client_that_leaves_and_comes_back_finds_its_app() {
        let (state, actions) = step(State::Idle, Event::Prepared(ONE));
        assert_eq!((&state, actions.len()), (&State::Prepared(ONE), 0));
        let (state, _) = step(state, Event::Started(ONE, "one"));
        let (state, actions) = step(state, Event::StreamEnded(ONE));
        assert_eq!((&state, actions), (&State::Idle, vec![Action::Join("one")]));
        let (state, _) = step(state, Event::Prepared(TWO));
        assert_eq!(step(state, Event::Started(TWO, "two")).0, State::Streaming(TWO, "two"));
    }

    #[test]
    fn a_resume_ends_the_stream_before_it_and_late_news_of_it_changes_nothing() {
        let running = State::Streaming(ONE, "one");
        let (state, actions) = step(running, Event::Replace);
        assert_eq!(actions, vec![Action::Stop("one", EndReason::Replaced)]);
        let (state, _) = step(state, Event::Prepared(TWO));
        let (state, actions) = step(state, Event::StreamEnded(ONE));
        assert_eq!((state, actions), (State::Prepared(TWO), vec![]));
    }

    #[test]
    fn a_stream_that_starts_after_the_end_is_stopped() {
        let (state, actions) = step(State::Prepared(ONE), Event::End(EndReason::Quit));
        assert_eq!(actions, vec![Action::<&str>::TearDown]);
        let (_, actions) = step(state, Event::Started(ONE, "late"));
        assert_eq!(actions, vec![Action::Stop("late", EndReason::Quit)]);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Prepare,
        Release(u64),
        Start(u64),
        StreamEnd(u64),
        Replace,
        End,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => Just(Op::Prepare),
            1 => (0..12_u64).prop_map(Op::Release),
            4 => (0..12_u64).prop_map(Op::Start),
            2 => (0..12_u64).prop_map(Op::StreamEnd),
            1 => Just(Op::Replace),
            1 => Just(Op::End),
        ]
    }

    proptest! {
        /// Every stream that was started is running or was handed back exactly once; nothing runs after the end, and the
        /// app is torn down exactly once.
        #[test]
        fn no_stream_is_lost_or_stopped_twice(ops in proptest::collection::vec(op(), 0..60)) {
            let mut state: State<u64> = State::Idle;
            let (mut opened, mut started, mut over, mut ended) = (0, BTreeSet::new(), BTreeSet::new(), 0);
            for op in ops {
                let event = match op {
                    Op::Prepare => { opened += 1; Event::Prepared(StreamNumber(opened)) }
                    Op::Release(n) => Event::Released(StreamNumber(n)),
                    Op::Start(n) => {
                        if n == 0 || n > opened || !started.insert(n) { continue }
                        Event::Started(StreamNumber(n), n)
                    }
                    Op::StreamEnd(n) => Event::StreamEnded(StreamNumber(n)),
                    Op::Replace => Event::Replace,
                    Op::End => Event::End(EndReason::Quit),
                };
                let (next, actions) = step(state, event);
                state = next;
                for action in actions {
                    match action {
                        Action::Stop(n, _) | Action::Join(n) => prop_assert!(over.insert(n), "{n} twice"),
                        Action::TearDown => ended += 1,
                    }
                }
                let running: BTreeSet<u64> = match &state {
                    State::Streaming(StreamNumber(n), handle) => {
                        prop_assert_eq!(n, handle);
                        [*n].into()
                    }
                    _ => BTreeSet::new(),
                };
                prop_assert_eq!(&started - &over, running);
                prop_assert_eq!(ended, usize::from(matches!(state, State::Ended(_))));
            }
        }
    }
}
