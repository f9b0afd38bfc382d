//! The suite of `versus` in which polity under a policy stands against polity without one, and against tokio.

use crate::{
    Contender, Goal, POLICIES, Peer, Polity, Row, Settings, Tokio, UnderPolicy, named, take_turns,
};

const SUITE: &str = "policy_hop";

/// What a policy costs. On `yield_many`, where both workers are busy all the time, next to the built-in FIFO; there and
/// on the benches that lose most by a policy, next to tokio.
///
/// ```
/// use polity_benches::{Goal, Settings, policy_hop};
///
/// let only = vec!["yield_many/fifo_per_worker".to_owned()];
/// let settings = Settings { reps: 1, workers: 1, only };
/// let mut goals = Vec::new();
/// policy_hop(&settings, &mut |row| goals.push((row.peer, row.goal)));
/// assert_eq!(goals, [("built-in", Goal::Cost(5.0)), ("tokio", Goal::Ratio(2.0))]);
/// ```
pub fn policy_hop(settings: &Settings, report: &mut dyn FnMut(Row)) {
    for workload in ["yield_many", "ping_pong", "chained_spawn"] {
        compare(workload, settings, report);
    }
}

fn compare(workload: &str, settings: &Settings, report: &mut dyn FnMut(Row)) {
    let bench = |under: &UnderPolicy| format!("{workload}/{}", under.name);
    let wanted = |under: &&UnderPolicy| settings.wants(SUITE, &bench(under));
    let policies: Vec<&UnderPolicy> = POLICIES.iter().filter(wanted).collect();
    if policies.is_empty() {
        return;
    }
    let under = |name, polity| Contender::new(name, polity, named(workload));
    let mut contenders = vec![
        under("built-in", Polity::start(settings.workers)),
        Contender::start::<Tokio>(workload, settings.workers),
    ];
    let start = |policy: &&UnderPolicy| under(policy.name, (policy.start)(settings.workers));
    contenders.extend(policies.iter().map(start));
    take_turns(&mut contenders, settings.reps);

    let [built_in, tokio, ours @ ..] = &contenders[..] else {
        return;
    };
    for (ours, policy) in ours.iter().zip(policies) {
        if workload == "yield_many" {
            report(ours.against(built_in, SUITE, &bench(policy), policy.hop));
        }
        if policy.against_tokio != Goal::None {
            report(ours.against(tokio, SUITE, &bench(policy), policy.against_tokio));
        }
    }
}
