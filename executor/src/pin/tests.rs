use super::*;

fn cores(mask: &[usize], allowed: usize) -> Cores {
    Cores {
        mask: Some(mask.to_vec()),
        allowed,
    }
}

/// Counts of their own, so that tests do not see each other's.
fn in_use() -> &'static InUse {
    Box::leak(Box::new(InUse::new()))
}

/// Checks that nothing is pinned, and why.
fn check_unpinned(
    cores: &Cores,
    pin: &Pin,
    workers: usize,
    variable: Option<&str>,
    why: Option<&str>,
) {
    let placement = cores.plan(pin, workers, variable, in_use()).unwrap();
    assert_eq!(placement.why_unpinned(), why);
    assert_eq!(placement.core_of(0), None);
    assert_eq!(placement.pin_current_thread(0), Ok(()));
}

fn check_refused(pin: Vec<usize>, workers: usize, message: &str) {
    let in_use = in_use();
    let error = cores(&[0, 1, 2, 5], 4).plan(&Pin::Cores(pin), workers, None, in_use);
    assert_eq!(error.unwrap_err().to_string(), message);
    assert!(in_use.change(|used| used.is_empty()));
}

#[test]
fn a_second_runtime_gets_the_cores_that_the_first_left() {
    let (cores, in_use) = (cores(&[0, 1, 2, 3], 4), in_use());
    let first = cores.plan(&Pin::Auto, 2, None, in_use).unwrap();
    let second = cores.plan(&Pin::Auto, 2, None, in_use).unwrap();
    assert_eq!((&*first.cores, &*second.cores), (&[0, 1][..], &[2, 3][..]));
    assert_eq!(first.why_unpinned(), None);
}

#[test]
fn cores_are_free_again_when_their_runtime_is_gone() {
    let (cores, in_use) = (cores(&[0, 1, 2], 3), in_use());
    let first = cores.plan(&Pin::Auto, 2, None, in_use).unwrap();
    let second = cores.plan(&Pin::Cores(vec![2]), 1, None, in_use).unwrap();
    drop(first);
    let third = cores.plan(&Pin::Auto, 2, None, in_use).unwrap();
    assert_eq!(third.cores, [0, 1]);
    drop((second, third));
    assert!(in_use.change(|used| used.iter().all(|&n| n == 0)));
}

#[test]
fn a_runtime_that_needs_all_cores_shares_them_with_the_first_and_the_next_one_keeps_off_both() {
    let (cores, in_use) = (cores(&[4, 5, 6], 3), in_use());
    let _first = cores.plan(&Pin::Auto, 1, None, in_use).unwrap();
    let all = cores.plan(&Pin::Auto, 3, None, in_use).unwrap();
    assert_eq!(all.cores, [4, 5, 6]);
    assert_eq!(
        cores.plan(&Pin::Auto, 1, None, in_use).unwrap().core_of(0),
        Some(5)
    );
}

#[test]
fn the_cores_that_a_program_names_are_kept_in_order_also_under_a_quota_and_also_twice() {
    let placement = cores(&[0, 1, 2, 3], 2)
        .plan(&Pin::Cores(vec![3, 0, 0, 1]), 3, Some("1"), in_use())
        .unwrap();
    let of = |worker| placement.core_of(worker);
    assert_eq!(
        [of(0), of(1), of(2), of(3)],
        [Some(3), Some(0), Some(0), None]
    );
}

#[test]
fn a_core_that_is_not_there_is_named_together_with_those_that_are() {
    check_refused(
        vec![0, 3],
        2,
        "Pin::Cores names core 3; this process may use cores 0-2, 5",
    );
    // Would panic inside libc, did core_affinity ever see it.
    check_refused(
        vec![1024],
        1,
        "Pin::Cores names core 1024; this process may use cores 0-2, 5",
    );
    check_refused(
        vec![usize::MAX],
        0,
        &format!(
            "Pin::Cores names core {}; this process may use cores 0-2, 5",
            usize::MAX
        ),
    );
}

#[test]
fn fewer_named_cores_than_workers_are_refused() {
    check_refused(vec![0, 1], 3, "Pin::Cores names 2 cores for 3 workers");
    check_refused(vec![], 1, "Pin::Cores names 0 cores for 1 workers");
}

#[test]
fn where_pinning_would_hurt_workers_run_unpinned_and_it_says_why() {
    let all = [0, 1, 2, 3];
    check_unpinned(
        &cores(&all, 2),
        &Pin::Auto,
        2,
        None,
        Some("a CPU quota allows 2 of 4 cores"),
    );
    check_unpinned(
        &cores(&all, 4),
        &Pin::Auto,
        5,
        None,
        Some("5 workers for cores 0-3"),
    );
    check_unpinned(
        &cores(&[7], 1),
        &Pin::Auto,
        2,
        None,
        Some("2 workers for core 7"),
    );
    let unreadable = Cores {
        mask: None,
        allowed: 4,
    };
    let why = Some("the affinity mask cannot be read");
    check_unpinned(&unreadable, &Pin::Auto, 1, None, why);
    check_unpinned(&unreadable, &Pin::Cores(vec![0]), 1, None, why);
}

#[test]
fn pinning_that_was_turned_off_in_the_program_is_no_news() {
    check_unpinned(&cores(&[0, 1], 1), &Pin::Off, 2, None, None);
    check_unpinned(&cores(&[0, 1], 2), &Pin::Off, 2, Some("0"), None);
}

#[test]
fn the_environment_turns_pinning_off_whatever_the_program_names() {
    let cores = cores(&[0, 1], 2);
    check_unpinned(&cores, &Pin::Auto, 2, Some("0"), Some("POLITY_PIN is 0"));
    check_unpinned(
        &cores,
        &Pin::Cores(vec![99]),
        2,
        Some("off"),
        Some("POLITY_PIN is off"),
    );
    let error = cores
        .plan(&Pin::Auto, 1, Some("yes"), in_use())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "POLITY_PIN=yes: known are 0 (off) and 1 (as the program asks)"
    );
}

#[test]
fn a_number_of_workers_that_is_none_is_refused_by_name_and_value() {
    let from = |value: &str| workers_from("POLITY_WORKERS", Some(value.to_owned()));
    assert_eq!(from(" 8 "), Ok(Some(8)));
    assert_eq!(workers_from("POLITY_WORKERS", None), Ok(None));
    for value in ["0", "-1", "many", "65536"] {
        let expected = format!("POLITY_WORKERS={value}: the number of workers is from 1 to 65535");
        assert_eq!(from(value), Err(expected));
    }
}

#[test]
fn without_a_number_there_are_as_many_workers_as_may_run_at_once_even_on_a_pinned_thread() {
    let allowed = Cores::of_this_process().allowed;
    let first = Cores::of_this_process().mask.as_ref().unwrap()[0];
    thread::spawn(move || {
        assert!(core_affinity::set_for_current(CoreId { id: first }));
        assert_eq!(Cores::of_this_process().allowed, allowed);
    })
    .join()
    .unwrap();
}

#[test]
fn a_pinned_thread_is_where_the_plan_says() {
    let mask = read_mask().unwrap();
    let placement = cores(&mask, mask.len())
        .plan(&Pin::Auto, mask.len(), None, in_use())
        .unwrap();
    thread::scope(|scope| {
        for (worker, core) in mask.iter().enumerate() {
            let placement = &placement;
            scope.spawn(move || {
                assert_eq!(placement.pin_current_thread(worker), Ok(()));
                assert_eq!(read_mask().unwrap(), [*core]);
            });
        }
    });
}

#[test]
fn a_core_that_the_kernel_refuses_is_an_error_and_not_a_panic() {
    // Within what core_affinity can express, and (so far) in no machine that runs these tests.
    let offline = cores(&[1023], 1)
        .plan(&Pin::Auto, 1, None, in_use())
        .unwrap();
    thread::spawn(move || {
        let error = offline.pin_current_thread(0).unwrap_err();
        assert_eq!(error, "the kernel refused to pin worker 0 to core 1023");
    })
    .join()
    .unwrap();
}

#[test]
fn workers_let_go_of_cores_that_nobody_named() {
    let cores = cores(&[0, 1, 2, 3], 4);
    let held = |pin| {
        let placement = cores.plan(&pin, 2, None, in_use()).unwrap();
        placement.holds().len()
    };
    assert_eq!(held(Pin::Auto), 2);
    assert_eq!(held(Pin::Cores(vec![0, 1])), 0);
    assert_eq!(held(Pin::Off), 0);
}
