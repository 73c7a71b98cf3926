//! What controllers say of policies and services, once everything is enforced.

use futures_util::future::join_all;
use ztc_model::condition::{Condition, ExpectedCondition};
use ztc_model::verdict::{Doubt, Verdict};

use super::Life;
use crate::chain;
use crate::interruption::Interruption;
use crate::wait::{Look, until};

/// What came of a condition that the case expects.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// The condition as it was last seen, if the object had one.
    pub(crate) found: Option<Condition>,
    pub(crate) verdict: Verdict,
}

impl Life<'_> {
    /// Looks at what the case expects controllers to say until they say it. Controllers write a status after they have
    /// told those who enforce, so it is waited for as long as for something that must pass.
    pub(super) async fn look_at_conditions(
        &mut self,
        interruption: &Interruption,
    ) -> Result<(), Doubt> {
        let looks = join_all(self.case.conditions.iter().map(|it| self.wait_for(it)));
        self.said = interruption.or(async { Ok(looks.await) }).await?;
        Ok(())
    }

    async fn wait_for(&self, expected: &ExpectedCondition) -> Said {
        let (ceiling, poll) = (self.pace.pass_ceiling(), self.pace.poll());
        let met = until("a condition", ceiling, poll, || async {
            let said = self.look_at(expected).await;
            Ok(match said.verdict {
                Verdict::Pass => Look::Met(said),
                verdict => Look::NotYet { status: verdict.to_string() },
            })
        })
        .await;
        match met {
            Ok(said) => said,
            // What the ceiling ends on is looked at again, and judged.
            Err(_ceiling) => self.look_at(expected).await,
        }
    }

    async fn look_at(&self, expected: &ExpectedCondition) -> Said {
        let doubt = |why| Said { found: None, verdict: Verdict::Inconclusive(Doubt::Fabric(why)) };
        match self.lane.cluster.conditions(&expected.object).await {
            Ok(Some(all)) => {
                Said { found: expected.among(&all).cloned(), verdict: expected.judge(&all) }
            }
            Ok(None) => doubt(format!("{} is not there", expected.object)),
            Err(error) => doubt(chain(&error)),
        }
    }
}
