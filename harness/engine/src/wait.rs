//! Waiting for a condition: level-triggered, short polls, a ceiling, and the last status in the error.
//!
//! After omicron's `wait_for_condition`: "timeouts, always wrong: some too short and some too long".
//! A poll is short because a look is cheap; a ceiling is long because it is only ever reached when
//! something is broken; a permanent error does not wait for it.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// One look at a condition.
#[derive(Debug)]
pub enum Look<T> {
    /// It holds.
    Met(T),
    /// It does not hold yet.
    NotYet {
        /// How far it is, in words.
        status: String,
    },
}

/// Why a wait ended without its condition.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The ceiling was reached.
    #[error("{what} did not come within {} ms; last seen: {last}", ceiling.as_millis())]
    Ceiling {
        /// What was waited for.
        what: String,
        /// For how long.
        ceiling: Duration,
        /// The status of the last look.
        last: String,
    },
    /// A look failed for good.
    #[error("{what} will not come: {reason}")]
    Failed {
        /// What was waited for.
        what: String,
        /// Why, in words.
        reason: String,
    },
}

/// Looks every `poll` until the condition is met, a look fails, or the ceiling is reached.
///
/// # Errors
/// [`WaitError::Ceiling`] with the last status, [`WaitError::Failed`] with the look's own error.
pub async fn until<T, F>(
    what: &str,
    ceiling: Duration,
    poll: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T, WaitError>
where
    F: Future<Output = Result<Look<T>, String>>,
{
    let deadline = Instant::now() + ceiling;
    let mut ticks = interval(poll);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = "never looked".to_owned();
    let ended = timeout_at(deadline, async {
        loop {
            ticks.tick().await;
            match look().await {
                Ok(Look::Met(value)) => return Ok(value),
                Ok(Look::NotYet { status }) => last = status,
                Err(reason) => return Err(WaitError::Failed { what: what.to_owned(), reason }),
            }
        }
    })
    .await;
    match ended {
        Ok(result) => result,
        Err(_elapsed) => Err(WaitError::Ceiling { what: what.to_owned(), ceiling, last }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_ceiling_reports_the_last_status() {
        let mut looks = 0;
        let error = until("spring", Duration::from_millis(950), Duration::from_millis(100), || {
            looks += 1;
            let status = format!("look {looks}");
            async move { Ok(Look::<()>::NotYet { status }) }
        })
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "spring did not come within 950 ms; last seen: look 10");
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_error_does_not_wait_out_the_ceiling() {
        let begun = Instant::now();
        let error = until("spring", Duration::from_mins(1), Duration::from_millis(1), || async {
            Err::<Look<()>, _>("no such season".to_owned())
        })
        .await
        .unwrap_err();
        assert!(matches!(error, WaitError::Failed { .. }));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
