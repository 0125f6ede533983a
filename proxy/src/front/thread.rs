//! The life of a data thread: one runtime, its listeners, its connections, its end of the journal.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::watch;

use super::connection::{Connections, Phase, accept};
use super::core::{Core, Shared};
use super::sockets::Listening;
use crate::record::Recorder;

/// How often connections are looked through for silent and old ones, and the published values looked
/// at, so that an idle thread does not keep an old table alive.
const SWEEP: Duration = Duration::from_millis(250);
/// How many tasks a turn of the event loop may run before new readiness is asked for: a whole burst
/// shares one batch of the journal.
const TURN_TASKS: u32 = 256;
/// How often the end is looked for while connections are open.
const END_CHECK: Duration = Duration::from_millis(10);

/// Runs data thread `index` until the phase is [`Phase::Ending`] and its connections are closed, or
/// until `phase`'s sender is gone.
///
/// # Errors
/// The operating system's, when the runtime or a listener cannot be set up.
pub fn run(
    index: usize,
    listeners: Vec<Listening>,
    shared: Arc<Shared>,
    recorder: impl FnOnce() -> Recorder,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TURN_TASKS)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let core = Rc::new(Core::new(index, shared, recorder()));
        let connections = Rc::new(Connections::default());
        let mut accepting = Vec::new();
        for Listening { listener, port } in listeners {
            let listener = (tokio::net::TcpListener::from_std(listener)?, port);
            let accept = accept(Rc::clone(&core), listener, phase.clone(), Rc::clone(&connections));
            accepting.push(tokio::task::spawn_local(async move {
                let _essential = Essential;
                accept.await;
            }));
        }
        let own = Rc::clone(&core);
        tokio::task::spawn_local(async move {
            let _essential = Essential;
            own.recorder.hand_over(|| own.turn.decide(&own)).await;
        });
        let own = Rc::clone(&core);
        tokio::task::spawn_local(async move {
            let _essential = Essential;
            own.recorder.acknowledge().await;
        });
        let (own, all) = (Rc::clone(&core), Rc::clone(&connections));
        tokio::task::spawn_local(async move {
            let _essential = Essential;
            loop {
                tokio::time::sleep(SWEEP).await;
                own.with(|_| ());
                own.look_at_clocks();
                all.sweep(&own);
            }
        });
        while let Ok(()) = phase.changed().await {
            let now = *phase.borrow_and_update();
            core.phase.set(now);
            if now == Phase::Ending {
                break;
            }
        }
        for accept in accepting {
            // It cannot have panicked: it is essential.
            let _ = accept.await;
        }
        while connections.open() > 0 {
            core.look_at_clocks();
            connections.sweep(&core);
            tokio::time::sleep(END_CHECK).await;
        }
        Ok(())
    })
}

/// A task without which the thread would go on half-working: its panic ends the process, where tokio
/// would end the task alone.
struct Essential;

impl Drop for Essential {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "a data thread's task panicked; the process ends, what was promised is in the journal"
            );
            std::process::abort();
        }
    }
}
