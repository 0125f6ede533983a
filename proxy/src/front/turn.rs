//! The questions of one turn of the event loop: put while it runs, decided together at its end.
//!
//! To find a link in a large table is to wait for memory, which is the longest step of a click here; the
//! questions of a turn wait together. They would leave together anyway, in one batch of the journal.
//!
//! Invariants:
//! - A question is decided in the turn in which it was put, before that turn's hits are handed over.
//! - Who asked is woken when the answer can be given: a hit's when the journal has acknowledged it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::core::Core;
use super::decide::{Question, Step, decide_all};

/// One data thread's questions.
#[derive(Default)]
pub(super) struct Turn(RefCell<Seats>);

/// Places for questions that are put and not yet taken back; a place is used again.
#[derive(Default)]
struct Seats {
    questions: Vec<Option<Question>>,
    answers: Vec<Answer>,
    /// The places that nobody has.
    free: Vec<usize>,
    /// The places of this turn.
    put: Vec<usize>,
}

#[derive(Default)]
struct Answer {
    step: Option<Step>,
    waker: Option<Waker>,
}

/// Puts `question` and waits for what was decided; gives the question back with it.
///
/// # Cancel safety
/// Dropping the future takes the question back; a hit that was staged is recorded all the same.
pub(super) async fn decided(core: &Core, question: Question) -> (Question, Step) {
    let mut question = Some(question);
    let mut seat: Option<Seat<'_>> = None;
    poll_fn(|context| {
        let mut seats = core.turn.0.borrow_mut();
        match (&seat, question.take()) {
            (None, Some(question)) => {
                seat = Some(Seat { turn: &core.turn, place: seats.sit(question, context.waker().clone()) });
                core.recorder.call_end_of_turn();
                Poll::Pending
            }
            (Some(seat), _) => seats.take(seat.place, context.waker()),
            (None, None) => unreachable!("a question that was put has its place"),
        }
    })
    .await
}

impl Turn {
    /// Decides what was put in this turn.
    pub(super) fn decide(&self, core: &Core) {
        let mut seats = self.0.borrow_mut();
        let Seats { questions, answers, put, .. } = &mut *seats;
        decide_all(core, questions, put, |place, step| {
            let Some(answer) = answers.get_mut(place) else { return };
            let batch = step.batch();
            answer.step = Some(step);
            if let Some(waker) = answer.waker.take() {
                match batch {
                    Some(batch) => core.recorder.wake_after(batch, waker),
                    None => waker.wake(),
                }
            }
        });
        put.clear();
    }
}

impl Seats {
    fn sit(&mut self, question: Question, waker: Waker) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.questions.push(None);
            self.answers.push(Answer::default());
            self.questions.len() - 1
        });
        self.questions[place] = Some(question);
        self.answers[place].waker = Some(waker);
        self.put.push(place);
        place
    }

    fn take(&mut self, place: usize, waker: &Waker) -> Poll<(Question, Step)> {
        let answer = &mut self.answers[place];
        match answer.step.take() {
            Some(step) => {
                Poll::Ready((self.questions[place].take().expect("it is kept with its answer"), step))
            }
            None => {
                if !answer.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    answer.waker = Some(waker.clone());
                }
                Poll::Pending
            }
        }
    }
}

/// A place while somebody has it.
struct Seat<'a> {
    turn: &'a Turn,
    place: usize,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut seats = self.turn.0.borrow_mut();
        let left = (seats.questions[self.place].take(), std::mem::take(&mut seats.answers[self.place]));
        // Whoever left before the end of the turn is not decided for. Whoever took the answer, and the question with
        // it, is in no turn any more and need not be looked for, which takes long where the turn has many.
        if left.0.is_some()
            && let Some(at) = seats.put.iter().position(|&place| place == self.place)
        {
            seats.put.swap_remove(at);
        }
        seats.free.push(self.place);
        drop(seats);
        drop(left);
    }
}
