//! Whose turn it is: which case a lane takes next. It knows how long cases are likely to take, and runs none.

use std::collections::BTreeMap;
use std::time::Duration;

use ztc_model::outcome::{EnforcementPoint, Expected};
use ztc_model::suite::{Case, Origin};
use ztc_model::world::World;

use crate::profile::{LaneKind, Pace};

/// What a cell adds to a case beyond the hold: its control, proof and recovery.
const EACH_CELL: Duration = Duration::from_millis(20);

/// What waits for a lane.
#[derive(Debug)]
pub struct Turn<T> {
    /// What it is.
    pub what: T,
    /// The world that has to be in the lane.
    pub world: String,
    /// How long it is likely to take, by [`likely`].
    pub likely: Duration,
}

/// What waits for lanes, and what is in them.
///
/// Where lanes are copies within one cluster, it is taken in the order in which it came. Where each lane is a cluster, a
/// lane keeps to its world as long as anything waits for that, and then goes where the most is left for each lane that is
/// there: so that few worlds are brought up, and no lane is at work alone in the end. Of what waits for a world the longest
/// goes first.
#[derive(Debug)]
pub struct Turns<T> {
    waiting: Vec<Turn<T>>,
    kind: LaneKind,
    /// In how many lanes a world is.
    lanes: BTreeMap<String, u32>,
}

impl<T> Turns<T> {
    /// All lanes are empty yet.
    pub fn new(waiting: Vec<Turn<T>>, kind: LaneKind) -> Self {
        Self { waiting, kind, lanes: BTreeMap::new() }
    }

    /// What a lane takes that has become free, with the world that is in it, if one is. Nothing when nothing waits: the lane
    /// is not asked for again.
    pub fn next(&mut self, lane: Option<&str>) -> Option<Turn<T>> {
        if let Some(count) = lane.and_then(|world| self.lanes.get_mut(world)) {
            *count = count.saturating_sub(1);
        }
        let index = match self.kind {
            LaneKind::Namespaces => (!self.waiting.is_empty()).then_some(0),
            LaneKind::Cluster => {
                let same = lane.and_then(|world| self.longest(world));
                same.or_else(|| self.longest(&self.neediest()?))
            }
        };
        let turn = self.waiting.remove(index?);
        *self.lanes.entry(turn.world.clone()).or_default() += 1;
        Some(turn)
    }

    /// The first of the longest that wait for a world.
    fn longest(&self, world: &str) -> Option<usize> {
        let waits = self.waiting.iter().enumerate().filter(|(_, it)| it.world == world);
        waits.rev().max_by_key(|(_, it)| it.likely).map(|(index, _)| index)
    }

    /// The world for which the most waits, for each lane that it would have with one more.
    fn neediest(&self) -> Option<String> {
        let mut waits: BTreeMap<&str, Duration> = BTreeMap::new();
        for turn in &self.waiting {
            *waits.entry(&turn.world).or_default() += turn.likely;
        }
        let share = |world: &str, all: Duration| {
            all / self.lanes.get(world).copied().unwrap_or_default().saturating_add(1)
        };
        let most = waits.into_iter().max_by_key(|(world, all)| share(world, *all));
        most.map(|(world, _)| world.to_owned())
    }
}

/// How long a case is likely to take in a lane that has its world. Nothing depends on it but who goes first.
///
/// What Cilium does to a tunnel is no end of a flow within it (`docs/adr/0011`): the client is listened to until its
/// deadline, once until the denial is true and once for the last sample of the hold.
pub fn likely(case: &Case, world: &World, pace: &Pace) -> Duration {
    let is_meshed = |from: &Origin| match from {
        Origin::Pod(pod) => world.pod(pod).is_some_and(|it| world.is_ambient(it)),
        Origin::Kubelet => false,
    };
    let is_waited_out = case.cells.iter().any(|cell| {
        let by_cilium = Some(EnforcementPoint::Cilium);
        matches!(cell.expected, Expected::Denied { by, .. } if by == by_cilium)
            && is_meshed(&cell.from)
    });
    let waited_out = if is_waited_out { pace.probe_deadline() * 2 } else { Duration::ZERO };
    let cells = u32::try_from(case.cells.len()).unwrap_or(u32::MAX);
    Duration::from_millis(pace.hold_ms)
        .saturating_add(waited_out)
        .saturating_add(EACH_CELL.saturating_mul(cells))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(waiting: &[(&str, u64)], kind: LaneKind) -> Turns<usize> {
        let turn = |(what, (world, ms)): (usize, &(&str, u64))| Turn {
            what,
            world: (*world).to_owned(),
            likely: Duration::from_millis(*ms),
        };
        Turns::new(waiting.iter().enumerate().map(turn).collect(), kind)
    }

    /// What each lane ran, in order, and when the last was done, where everything takes as long as it is likely to.
    fn play(mut turns: Turns<usize>, lanes: usize) -> (Vec<Vec<(usize, String)>>, Duration) {
        let mut ran = vec![Vec::<(usize, String)>::new(); lanes];
        let mut free: Vec<(Duration, usize)> = (0..lanes).map(|it| (Duration::ZERO, it)).collect();
        let mut end = Duration::ZERO;
        while let Some(first) = (0..free.len()).min_by_key(|it| free[*it]) {
            let (at, lane) = free.swap_remove(first);
            let had = ran[lane].last().map(|(_, world)| world.clone());
            end = end.max(at);
            if let Some(turn) = turns.next(had.as_deref()) {
                free.push((at + turn.likely, lane));
                ran[lane].push((turn.what, turn.world));
            }
        }
        (ran, end)
    }

    fn worlds(ran: &[(usize, String)]) -> Vec<&str> {
        let mut worlds: Vec<&str> = ran.iter().map(|(_, world)| world.as_str()).collect();
        worlds.dedup();
        worlds
    }

    #[test]
    fn lanes_go_where_the_most_is_left_and_the_longest_goes_first() {
        let waiting = [
            ("a", 1),
            ("a", 1),
            ("b", 5),
            ("a", 3),
            ("b", 1),
            ("b", 1),
            ("a", 1),
            ("b", 4),
            ("c", 2),
        ];
        let (ran, end) = play(turns(&waiting, LaneKind::Cluster), 3);
        let told = |lane: &[(usize, String)]| {
            lane.iter().map(|(what, world)| format!("{world}{what}")).collect::<Vec<_>>().join(" ")
        };
        let told: Vec<String> = ran.iter().map(|it| told(it)).collect();
        assert_eq!(told, ["b2 b5", "a3 a0 a1 a6", "b7 b4 c8"]);
        assert_eq!(end, Duration::from_millis(7));
    }

    #[test]
    fn copies_within_a_cluster_are_given_what_came_first() {
        let waiting = [("a", 1), ("a", 9), ("b", 5), ("b", 7)];
        let mut turns = turns(&waiting, LaneKind::Namespaces);
        let mut next = |lane| turns.next(lane).map(|it| it.what);
        assert_eq!([next(None), next(None), next(Some("b"))], [Some(0), Some(1), Some(2)]);
        assert_eq!([next(Some("a")), next(Some("b"))], [Some(3), None]);
    }

    proptest! {
        #[test]
        fn everything_has_its_turn_once_and_no_lane_is_at_work_alone_for_long(
            waiting in prop::collection::vec((0..4_usize, 1..50_u64), 0..40),
            lanes in 1..8_usize,
        ) {
            let names = ["a", "b", "c", "d"];
            let waiting: Vec<_> = waiting.into_iter().map(|(it, ms)| (names[it], ms)).collect();
            let (ran, end) = play(turns(&waiting, LaneKind::Cluster), lanes);
            let mut all: Vec<usize> = ran.iter().flatten().map(|(what, _)| *what).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..waiting.len()).collect::<Vec<_>>());
            for lane in &ran {
                let mut seen = worlds(lane);
                let changes = seen.len();
                seen.sort_unstable();
                seen.dedup();
                prop_assert_eq!(changes, seen.len(), "a world left a lane while something waited for it");
            }
            // Graham's bound of a list that is worked off without idling (1969).
            let total: u64 = waiting.iter().map(|(_, ms)| ms).sum();
            let longest = waiting.iter().map(|(_, ms)| *ms).max().unwrap_or_default();
            let lanes = u64::try_from(lanes).unwrap();
            prop_assert!(end <= Duration::from_millis(total / lanes + longest + 1));
        }
    }
}
