use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// A desk whose clock is a number that the test sets, in milliseconds.
fn desk_at_zero(mode: DeskMode) -> (PairingDesk, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&clock);
    let desk = PairingDesk::with_clock(DeskOptions::new(mode), move || {
        Timestamp::from_micros(now.load(Ordering::SeqCst) * 1000)
    });
    (desk, clock)
}

fn asking(unique_id: &str, remote: &str) -> Asking {
    Asking {
        unique_id: unique_id.to_owned(),
        remote: remote.parse().unwrap(),
        device_name: "roth".to_owned(),
        client: ClientId([9; 32]),
    }
}

fn pin(text: &str) -> Pin {
    text.parse().unwrap()
}

fn answer(request: Option<RequestId>, text: &str) -> AnswerPin {
    AnswerPin { request, pin: pin(text), name: None }
}

const STOCK_ID: &str = "0123456789ABCDEF";

#[tokio::test]
async fn a_pin_reaches_the_only_request() {
    let (desk, _clock) = desk_at_zero(DeskMode::Prompt);
    let mut wait = desk.ask(asking(STOCK_ID, "::ffff:10.0.0.5")).unwrap();
    let pending = desk.pending();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].device_name, "10.0.0.5");
    let name = Some(" Sofa ".to_owned());
    let chosen = desk.answer(AnswerPin { request: None, pin: pin("0042"), name }).unwrap();
    assert_eq!(chosen.id, wait.id());
    assert_eq!(wait.pin().await.unwrap().as_bytes(), b"0042");
    assert_eq!(desk.name_of(wait.id()).as_deref(), Some("Sofa"));
    assert_eq!(wait.pin().await.unwrap_err(), Withdrawn::Replaced, "a PIN is given once");
    let id = wait.id();
    drop(wait);
    let client = ClientId([7; 32]);
    desk.report(id, PairingOutcome::Paired { client });
    let snapshot = desk.snapshot();
    assert!(snapshot.pending.is_empty());
    assert_eq!(snapshot.recent.len(), 1);
    assert_eq!(
        snapshot.recent[0].end,
        RequestEnd::Outcome(PairingOutcome::Paired { client }),
        "dropping the wait after the PIN is no end of its own"
    );
}

// spec: gamestream 13 item 32
#[tokio::test]
async fn with_several_waiting_a_pin_needs_its_request() {
    let (desk, _clock) = desk_at_zero(DeskMode::Prompt);
    let mut one = desk.ask(asking(STOCK_ID, "10.0.0.5")).unwrap();
    let mut two = desk.ask(asking(STOCK_ID, "10.0.0.6")).unwrap();
    let error = desk.answer(answer(None, "1111")).unwrap_err();
    let AnswerError::SeveralPending { pending } = error else { panic!("{error}") };
    assert_eq!(pending.iter().map(|p| p.id).collect::<Vec<_>>(), [one.id(), two.id()]);
    desk.answer(answer(Some(two.id()), "2222")).unwrap();
    assert_eq!(two.pin().await.unwrap().as_bytes(), b"2222");
    assert_eq!(
        desk.answer(answer(Some(two.id()), "3333")).unwrap_err(),
        AnswerError::UnknownRequest { request: two.id() }
    );
    desk.answer(answer(None, "1111")).unwrap();
    assert_eq!(one.pin().await.unwrap().as_bytes(), b"1111");
    assert_eq!(desk.answer(answer(None, "4444")).unwrap_err(), AnswerError::NothingPending);
}

// spec: gamestream 13 item 31
#[tokio::test]
async fn a_device_that_asks_again_replaces_its_own_request_only() {
    let (desk, _clock) = desk_at_zero(DeskMode::Prompt);
    let mut old = desk.ask(asking(STOCK_ID, "10.0.0.5")).unwrap();
    let other = desk.ask(asking(STOCK_ID, "10.0.0.6")).unwrap();
    let mut new = desk.ask(asking(STOCK_ID, "10.0.0.5")).unwrap();
    assert_eq!(old.pin().await.unwrap_err(), Withdrawn::Replaced);
    assert_eq!(old.pin().await.unwrap_err(), Withdrawn::Replaced);
    drop(old);
    assert_eq!(desk.pending().len(), 2);
    drop(other);
    desk.answer(answer(None, "1234")).unwrap();
    assert_eq!(new.pin().await.unwrap().as_bytes(), b"1234");
}

#[test]
fn caps_hold_and_nobody_is_evicted() {
    let (desk, _clock) = desk_at_zero(DeskMode::Prompt);
    let mut waits = vec![
        desk.ask(asking("a", "2001:db8::1")).unwrap(),
        desk.ask(asking("b", "2001:db8::2:1")).unwrap(),
    ];
    let from_one_network = desk.ask(asking("c", "2001:db8::3")).unwrap_err();
    assert_eq!(from_one_network, AskRefusal::TooManyFromAddress { max: 2 });
    for index in 0..6 {
        waits.push(desk.ask(asking("a", &format!("10.0.0.{index}"))).unwrap());
    }
    assert_eq!(
        desk.ask(asking("a", "10.0.1.1")).unwrap_err(),
        AskRefusal::TooManyPending { max: 8 }
    );
    let ids = || desk.pending().iter().map(|p| p.id).collect::<HashSet<_>>();
    assert_eq!(ids(), waits.iter().map(PinWait::id).collect());
    waits.pop();
    waits.push(desk.ask(asking("a", "10.0.1.1")).unwrap());
    assert_eq!(ids(), waits.iter().map(PinWait::id).collect());
}

#[tokio::test]
async fn an_unattended_desk_takes_requests_only_while_armed() {
    let (desk, clock) = desk_at_zero(DeskMode::Armed);
    assert_eq!(desk.ask(asking("a", "10.0.0.5")).unwrap_err(), AskRefusal::NotArmed);
    let armed = desk.arm(DEFAULT_WINDOW);
    assert_eq!(armed, DeskState::Armed { remaining: DEFAULT_WINDOW });
    let mut wait = desk.ask(asking("a", "10.0.0.5")).unwrap();
    assert_eq!(desk.disarm(), DeskState::Unarmed);
    assert_eq!(wait.pin().await.unwrap_err(), Withdrawn::Disarmed);
    desk.arm(DEFAULT_WINDOW);
    clock.store(300_000, Ordering::SeqCst);
    assert_eq!(desk.state(), DeskState::Unarmed);
    assert_eq!(desk.ask(asking("a", "10.0.0.5")).unwrap_err(), AskRefusal::NotArmed);
    assert_eq!(desk.arm(Duration::MAX), DeskState::Armed { remaining: MAX_WINDOW });
}

// spec: gamestream 13 item 36
#[tokio::test]
async fn a_request_waits_five_minutes_and_no_longer() {
    let (desk, clock) = desk_at_zero(DeskMode::Prompt);
    let mut wait = desk.ask(asking("a", "10.0.0.5")).unwrap();
    clock.store(299_999, Ordering::SeqCst);
    assert_eq!(desk.pending().len(), 1);
    clock.store(300_000, Ordering::SeqCst);
    assert_eq!(
        desk.answer(answer(Some(wait.id()), "1234")).unwrap_err(),
        AnswerError::UnknownRequest { request: wait.id() }
    );
    assert_eq!(wait.pin().await.unwrap_err(), Withdrawn::Expired);
}

#[tokio::test]
async fn a_waiting_door_is_told_when_time_is_up() {
    let limits = DeskLimits { ttl: Duration::from_millis(20), ..DeskLimits::default() };
    let desk = PairingDesk::new(DeskOptions { mode: DeskMode::Prompt, limits });
    let mut wait = desk.ask(asking("a", "10.0.0.5")).unwrap();
    assert_eq!(wait.pin().await.unwrap_err(), Withdrawn::Expired);
    drop(wait);
    assert!(desk.pending().is_empty());
}

/// One pairing from this address that fails after its PIN was given.
async fn fail(desk: &PairingDesk, remote: &str, outcome: PairingOutcome) {
    let mut wait = desk.ask(asking(STOCK_ID, remote)).unwrap();
    desk.answer(answer(Some(wait.id()), "1234")).unwrap();
    wait.pin().await.unwrap();
    desk.report(wait.id(), outcome);
}

// spec: gamestream 13 item 41
#[tokio::test]
async fn five_failures_block_an_address_for_a_minute() {
    let (desk, clock) = desk_at_zero(DeskMode::Prompt);
    let mut events = desk.events();
    for round in 0..5 {
        let outcome = [PairingOutcome::WrongPin, PairingOutcome::Abandoned][round % 2];
        fail(&desk, "2001:db8::5", outcome).await;
    }
    clock.store(1_000, Ordering::SeqCst);
    assert_eq!(
        desk.ask(asking("other", "2001:db8::6")).unwrap_err(),
        AskRefusal::RateLimited { retry_after: Duration::from_secs(59) }
    );
    assert!(desk.ask(asking(STOCK_ID, "2001:db8:0:1::5")).is_ok(), "the next /64 is another's");
    clock.store(60_000, Ordering::SeqCst);
    assert!(desk.ask(asking(STOCK_ID, "2001:db8::5")).is_ok());
    let mut is_refusal_told = false;
    while let Ok(event) = events.try_recv() {
        is_refusal_told |= matches!(event, PairingEvent::Refused { .. });
    }
    assert!(is_refusal_told);
}

// spec: gamestream 13 item 30
#[tokio::test]
async fn a_wrong_pin_may_be_tried_again_at_once_and_success_forgives() {
    let (desk, clock) = desk_at_zero(DeskMode::Prompt);
    for _ in 0..4 {
        fail(&desk, "10.0.0.5", PairingOutcome::WrongPin).await;
    }
    let client = ClientId([1; 32]);
    fail(&desk, "10.0.0.5", PairingOutcome::Paired { client }).await;
    for _ in 0..4 {
        fail(&desk, "10.0.0.5", PairingOutcome::ProtocolError).await;
    }
    clock.store(600_000, Ordering::SeqCst);
    fail(&desk, "10.0.0.5", PairingOutcome::WrongPin).await;
    assert!(desk.ask(asking("a", "10.0.0.5")).is_ok(), "old failures are forgotten");
}

#[tokio::test]
async fn asking_anew_instead_of_failing_counts_too() {
    let (desk, _clock) = desk_at_zero(DeskMode::Prompt);
    for _ in 0..5 {
        let mut wait = desk.ask(asking(STOCK_ID, "10.0.0.5")).unwrap();
        desk.answer(answer(None, "1234")).unwrap();
        wait.pin().await.unwrap();
    }
    assert!(matches!(desk.ask(asking(STOCK_ID, "10.0.0.5")), Err(AskRefusal::RateLimited { .. })));
    assert!(desk.pending().is_empty());
}

#[test]
fn asking_and_leaving_over_and_over_blocks_an_address() {
    let (desk, clock) = desk_at_zero(DeskMode::Prompt);
    let ask = |remote: &str| desk.ask(asking(STOCK_ID, remote));
    // What the owner ends is nobody's fault.
    for _ in 0..20 {
        let _wait = ask("10.0.0.5").unwrap();
        desk.disarm();
    }
    let mut replaced = Vec::new();
    for round in 0..10 {
        let wait = ask("10.0.0.5").unwrap();
        if round % 2 == 0 {
            replaced.push(wait);
        }
    }
    let blocked = AskRefusal::RateLimited { retry_after: Duration::from_secs(60) };
    assert_eq!(ask("10.0.0.5").unwrap_err(), blocked);
    assert!(ask("10.0.0.6").is_ok());
    clock.store(60_000, Ordering::SeqCst);
    assert!(ask("10.0.0.5").is_ok());
}

#[tokio::test]
async fn the_owner_can_decline() {
    let (desk, _clock) = desk_at_zero(DeskMode::Prompt);
    let mut wait = desk.ask(asking("a", "10.0.0.5")).unwrap();
    desk.decline(wait.id()).unwrap();
    assert_eq!(wait.pin().await.unwrap_err(), Withdrawn::Declined);
    assert!(desk.decline(wait.id()).is_err());
}

#[test]
fn who_was_declined_may_not_ask_again_for_ten_minutes_from_there_or_with_that_certificate() {
    let (desk, clock) = desk_at_zero(DeskMode::Prompt);
    let of = |client: u8, remote: &str| {
        let client = ClientId([client; 32]);
        desk.ask(Asking { client, ..asking("a", remote) })
    };
    let wait = of(1, "10.0.0.5").unwrap();
    let bystander = of(2, "10.0.0.6").unwrap();
    desk.decline(wait.id()).unwrap();
    let denied = desk.snapshot().denied;
    assert_eq!(denied.len(), 1);
    assert_eq!(
        (denied[0].client, denied[0].remote.to_string().as_str()),
        (ClientId([1; 32]), "10.0.0.5")
    );
    clock.store(1_000, Ordering::SeqCst);
    let declined = AskRefusal::Declined { retry_after: Duration::from_secs(599) };
    assert_eq!(of(3, "10.0.0.5").unwrap_err(), declined, "another device there");
    assert_eq!(of(1, "10.0.0.7").unwrap_err(), declined, "the device elsewhere");
    assert_eq!(desk.pending().len(), 1);
    drop(bystander);
    assert!(of(2, "10.0.0.6").is_ok());
    clock.store(600_000, Ordering::SeqCst);
    assert_eq!(desk.snapshot().denied, []);
    let wait = of(1, "10.0.0.5").unwrap();
    desk.decline(wait.id()).unwrap();
    assert!(of(1, "10.0.0.5").is_err());
    desk.arm(DEFAULT_WINDOW);
    assert!(of(1, "10.0.0.5").is_ok(), "the owner thought better of it");
}

#[tokio::test]
async fn a_self_test_whose_request_expired_is_still_no_device() {
    let (desk, clock) = desk_at_zero(DeskMode::Armed);
    let client = ClientId([9; 32]);
    desk.permit_self_test(client).unwrap();
    let mut wait = desk.ask(asking(STOCK_ID, "127.0.0.1")).unwrap();
    let id = wait.id();
    desk.answer(answer(Some(id), "1234")).unwrap();
    assert!(wait.pin().await.is_ok());
    clock.store(600_000, Ordering::SeqCst);
    assert_eq!(desk.snapshot().recent, [], "it is not told of");
    assert_eq!(desk.name_of(id), None, "it has left the desk");
    assert_eq!(desk.trust_self_test(id, client), Some(false));
    drop(desk.end_self_test(client).unwrap());
    assert_eq!(desk.trust_self_test(id, client), Some(false), "nor after its permit");
    assert_eq!(desk.trust_self_test(id, ClientId([8; 32])), None);
}

#[tokio::test]
async fn a_listener_wakes_when_the_desk_changes() {
    let (desk, _clock) = desk_at_zero(DeskMode::Prompt);
    let before = desk.snapshot();
    let listener = tokio::spawn({
        let desk = desk.clone();
        async move { desk.changed_since(before.revision).await }
    });
    let wait = desk.ask(asking("a", "10.0.0.5")).unwrap();
    let after = listener.await.unwrap();
    assert_eq!(after.pending.len(), 1);
    drop(wait);
    assert!(desk.changed_since(after.revision).await.pending.is_empty());
}

#[test]
fn names_from_the_network_are_safe_to_print() {
    let (desk, _clock) = desk_at_zero(DeskMode::Prompt);
    let name = |device_name: &str| {
        let _wait = desk
            .ask(Asking { device_name: device_name.to_owned(), ..asking("a", "10.0.0.5") })
            .unwrap();
        desk.pending()[0].device_name.clone()
    };
    assert_eq!(name("\u{1b}]0;title\u{7}TV"), "]0;title TV");
    assert_eq!(name("rothupdateState=1"), "10.0.0.5");
    assert_eq!(name(&"x".repeat(10_000)).len(), 64);
}

#[derive(Debug, Clone)]
enum Op {
    Ask { unique_id: u8, remote: u8 },
    Answer { choose: Option<u8>, pin: u16 },
    Take { which: u8 },
    Drop { which: u8 },
    Report { which: u8, outcome: u8 },
    Decline { which: u8 },
    Arm { seconds: u16 },
    Disarm,
    Pass { seconds: u16 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4u8, 0..12u8).prop_map(|(unique_id, remote)| Op::Ask { unique_id, remote }),
        4 => (proptest::option::of(any::<u8>()), 0..10_000u16)
            .prop_map(|(choose, pin)| Op::Answer { choose, pin }),
        4 => any::<u8>().prop_map(|which| Op::Take { which }),
        1 => any::<u8>().prop_map(|which| Op::Drop { which }),
        3 => (any::<u8>(), 0..4u8).prop_map(|(which, outcome)| Op::Report { which, outcome }),
        1 => any::<u8>().prop_map(|which| Op::Decline { which }),
        2 => (0..700u16).prop_map(|seconds| Op::Arm { seconds }),
        1 => Just(Op::Disarm),
        2 => (0..200u16).prop_map(|seconds| Op::Pass { seconds }),
    ]
}

/// The desk under random operations, with what the test knows of it beside it.
struct Model {
    desk: PairingDesk,
    clock: Arc<AtomicU64>,
    waits: Vec<PinWait>,
    owner_of: HashMap<RequestId, (u8, IpAddr)>,
    answered: HashSet<RequestId>,
    taken: HashSet<RequestId>,
    runtime: tokio::runtime::Runtime,
}

impl Model {
    fn new(mode: DeskMode) -> Self {
        let (desk, clock) = desk_at_zero(mode);
        Self {
            desk,
            clock,
            waits: Vec::new(),
            owner_of: HashMap::new(),
            answered: HashSet::new(),
            taken: HashSet::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
        }
    }

    fn pick(&self, which: u8) -> Option<usize> {
        (!self.waits.is_empty()).then(|| usize::from(which) % self.waits.len())
    }

    fn apply(&mut self, op: Op) {
        let before: HashSet<RequestId> = self.desk.pending().iter().map(|p| p.id).collect();
        let gone = |desk: &PairingDesk| -> HashSet<RequestId> {
            let after: HashSet<_> = desk.pending().iter().map(|p| p.id).collect();
            before.difference(&after).copied().collect()
        };
        match op {
            Op::Ask { unique_id, remote } => {
                let address = match remote {
                    0..6 => format!("10.0.0.{remote}"),
                    _ => format!("2001:db8:{}::{remote}", remote % 3),
                };
                let asked = self.desk.ask(asking(&unique_id.to_string(), &address));
                let owner = (unique_id, address.parse().unwrap());
                for id in gone(&self.desk) {
                    assert_eq!(self.owner_of[&id], owner, "another's request was evicted");
                }
                if let Ok(wait) = asked {
                    assert_ne!(self.desk.state(), DeskState::Unarmed);
                    assert!(self.owner_of.insert(wait.id(), owner).is_none(), "an id came twice");
                    self.waits.push(wait);
                }
            }
            Op::Answer { choose, pin } => self.answer(choose, pin, &before),
            Op::Take { which } => {
                let Some(index) = self.pick(which) else { return };
                let wait = &mut self.waits[index];
                let id = wait.id();
                if self.answered.contains(&id) && !self.taken.contains(&id) {
                    let pin = self.runtime.block_on(wait.pin()).unwrap();
                    assert_eq!(pin.as_bytes().len(), 4);
                    self.taken.insert(id);
                } else if before.contains(&id) {
                    let ready = self.runtime.block_on(async {
                        tokio::select! { biased; pin = wait.pin() => Some(pin), () = std::future::ready(()) => None }
                    });
                    assert!(ready.is_none(), "a request without an answer got a PIN");
                } else {
                    assert!(self.runtime.block_on(wait.pin()).is_err());
                }
            }
            Op::Drop { which } => {
                let Some(index) = self.pick(which) else { return };
                let wait = self.waits.swap_remove(index);
                let id = wait.id();
                drop(wait);
                assert!(gone(&self.desk).iter().all(|gone| *gone == id));
            }
            Op::Report { which, outcome } => {
                let Some(index) = self.pick(which) else { return };
                let client = ClientId([9; 32]);
                let outcome = match outcome {
                    0 => PairingOutcome::Paired { client },
                    1 => PairingOutcome::WrongPin,
                    2 => PairingOutcome::Abandoned,
                    _ => PairingOutcome::ProtocolError,
                };
                let id = self.waits[index].id();
                if self.taken.contains(&id) {
                    self.desk.report(id, outcome);
                    assert!(gone(&self.desk).is_empty());
                }
            }
            Op::Decline { which } => {
                let Some(index) = self.pick(which) else { return };
                let id = self.waits[index].id();
                assert_eq!(self.desk.decline(id).is_ok(), before.contains(&id));
            }
            Op::Arm { seconds } => drop(self.desk.arm(Duration::from_secs(seconds.into()))),
            Op::Disarm => {
                self.desk.disarm();
                assert!(self.desk.pending().is_empty());
            }
            Op::Pass { seconds } => {
                self.clock.fetch_add(u64::from(seconds) * 1000, Ordering::SeqCst);
            }
        }
    }

    fn answer(&mut self, choose: Option<u8>, number: u16, before: &HashSet<RequestId>) {
        let request = choose.and_then(|which| self.pick(which)).map(|at| self.waits[at].id());
        let text = format!("{number:04}");
        match self.desk.answer(answer(request, &text)) {
            Ok(chosen) => {
                assert!(before.contains(&chosen.id), "only a waiting request gets a PIN");
                assert!(request.is_none_or(|id| id == chosen.id));
                assert!(request.is_some() || before.len() == 1, "never guessed among several");
                assert!(self.answered.insert(chosen.id), "a request got two PINs");
                let left: HashSet<_> = self.desk.pending().iter().map(|p| p.id).collect();
                assert_eq!(before.len() - left.len(), 1, "a PIN concerns one request");
            }
            Err(AnswerError::SeveralPending { pending }) => {
                assert!(request.is_none() && pending.len() > 1);
            }
            Err(AnswerError::NothingPending) => assert!(before.is_empty()),
            Err(AnswerError::UnknownRequest { request }) => assert!(!before.contains(&request)),
        }
    }

    fn check(&self) {
        let pending = self.desk.pending();
        assert!(pending.len() <= 8);
        let mut per_address: HashMap<String, usize> = HashMap::new();
        for request in &pending {
            let key = match request.remote {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("{:?}", &address.segments()[..4]),
            };
            *per_address.entry(key).or_default() += 1;
            assert!(!self.answered.contains(&request.id));
        }
        assert!(per_address.values().all(|count| *count <= 2));
        let owners: HashSet<_> = pending.iter().map(|p| self.owner_of[&p.id]).collect();
        assert_eq!(owners.len(), pending.len(), "one request per device and address");
    }
}

proptest! {
    #[test]
    fn the_rules_hold_whatever_happens(
        armed in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let mut model = Model::new(if armed { DeskMode::Armed } else { DeskMode::Prompt });
        for op in ops {
            model.apply(op);
            model.check();
        }
    }
}
