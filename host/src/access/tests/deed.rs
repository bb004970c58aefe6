//! What the owner proves to want, with a root that is only asked.

use super::*;

/// Keeps the owner's key and looks at proofs as root's program does.
struct FakeRoot {
    kept: Mutex<ProofVerifier>,
    present: Mutex<Option<Presence>>,
    done: Mutex<Vec<Deed>>,
}

impl Root for FakeRoot {
    fn ask(&self, deed: Deed) -> Result<Asked, RootError> {
        let mut kept = self.kept.lock().unwrap();
        let nonce = kept.challenge(deed.verb(), deed.digest(), [3; 32]);
        Ok(Asked { salt: kept.salt(), key: kept.key(), nonce })
    }

    fn bring(&self, deed: Deed, proof: &OwnerProof) -> Result<(), RootError> {
        let present = self.present.lock().unwrap().clone();
        let mut kept = self.kept.lock().unwrap();
        let verified = kept.verify(proof, deed.verb(), deed.digest(), present.as_ref());
        verified.map_err(|error| match error {
            ProofError::Presence => RootError::Presence,
            _ => RootError::Proof,
        })?;
        self.done.lock().unwrap().push(deed);
        Ok(())
    }
}

fn with_root() -> (House, Access, LoggedIn, Arc<FakeRoot>) {
    let (house, access, owner) = claimed();
    let kept = Mutex::new(access.proof_verifier().unwrap());
    let root = FakeRoot { kept, present: Mutex::default(), done: Mutex::default() };
    let root = Arc::new(root);
    access.with_root(root.clone());
    (house, access, owner, root)
}

/// Over the local socket, where wrong passwords cost no time.
fn prove(access: &Access, deed: Deed, password: &str) -> Result<bool, WishError> {
    access.prove(&Wish { deed, password, own: None, remote: None })
}

const RESET: Deed = Deed::FactoryReset;
const BACK: Deed = Deed::RollbackBelowFloor { commit: [1; 32] };

#[test]
fn what_the_owner_wants_is_proved_with_the_password() {
    let (_house, access, _, root) = with_root();
    assert!(!prove(&access, BACK, PASSWORD).unwrap());
    let wrong = prove(&access, BACK, "wrong horse");
    assert!(matches!(wrong, Err(WishError::Password(LoginError::Wrong { .. }))), "{wrong:?}");
    assert_eq!(*root.done.lock().unwrap(), [BACK]);
    // Root stayed behind with the key of another password.
    let other = ProofKey::derive(b"another", [4; 16], HashCost::DANGEROUS_CHEAP).unwrap();
    *root.kept.lock().unwrap() = ProofVerifier::new(other.salt(), other.public());
    assert!(matches!(prove(&access, BACK, PASSWORD), Err(WishError::OtherKey)));
    // Nobody looks after this machine, or nobody owns it.
    let (_house, alone, _) = claimed();
    assert!(matches!(prove(&alone, BACK, PASSWORD), Err(WishError::NoRoot)));
    access.rearm(&Presence::PowerButton).unwrap();
    let nobodys = prove(&access, BACK, PASSWORD);
    assert!(matches!(nobodys, Err(WishError::Password(LoginError::Unclaimed))), "{nobodys:?}");
    assert_eq!(root.done.lock().unwrap().len(), 1);
}

#[test]
fn wrong_passwords_are_counted_as_at_the_login() {
    let (_house, access, owner, root) = with_root();
    let guess = |own| {
        let wish = Wish { deed: RESET, password: "wrong horse", own, remote: Some(THERE) };
        access.prove(&wish).unwrap_err()
    };
    let tries = (0..6).map(|_| guess(None)).collect::<Vec<_>>();
    let is_wait = |error: &WishError| matches!(error, WishError::Password(LoginError::Wait { .. }));
    assert!(!is_wait(&tries[0]) && is_wait(&tries[5]), "{tries:?}");
    // Whoever is logged in is counted for himself.
    assert!(!is_wait(&guess(Some(owner.session.id))));
    assert!(root.done.lock().unwrap().is_empty());
}

#[test]
fn somebody_is_waited_for_after_a_good_proof_alone_and_not_for_long() {
    let (house, access, _, root) = with_root();
    let is_absent =
        |came: Result<bool, WishError>| matches!(came, Err(WishError::Root(RootError::Presence)));
    assert!(prove(&access, RESET, "wrong horse").is_err() && !access.awaits_somebody());
    prove(&access, BACK, PASSWORD).unwrap();
    assert!(!access.awaits_somebody(), "that needs nobody");
    house.pass(Duration::from_secs(60));
    assert!(is_absent(prove(&access, RESET, PASSWORD)) && access.awaits_somebody());
    house.pass(Duration::from_secs(600));
    assert!(access.awaits_somebody());
    house.pass(Duration::from_secs(1));
    assert!(!access.awaits_somebody());
    // Something else that is proved meanwhile changes nothing.
    assert!(is_absent(prove(&access, RESET, PASSWORD)));
    prove(&access, BACK, PASSWORD).unwrap();
    assert!(access.awaits_somebody());
    *root.present.lock().unwrap() = Some(Presence::PowerButton);
    assert!(!prove(&access, RESET, PASSWORD).unwrap() && !access.awaits_somebody());
    assert_eq!(root.done.lock().unwrap().last(), Some(&RESET));
    // Nor for a new owner.
    *root.present.lock().unwrap() = None;
    assert!(is_absent(prove(&access, RESET, PASSWORD)));
    access.rearm(&Presence::PowerButton).unwrap();
    assert!(!access.awaits_somebody());
}

#[test]
fn what_is_only_shown_asks_for_the_same_proof() {
    let (_house, access, _) = claimed();
    access.with_root(Arc::new(SimulatedRoot::new(&access)));
    assert!(prove(&access, RESET, PASSWORD).unwrap(), "it says that it is a simulation");
    assert!(prove(&access, RESET, "wrong horse").is_err());
    let root = SimulatedRoot::new(&access);
    let asked = root.ask(BACK).unwrap();
    let thief = ProofKey::derive(b"thief", asked.salt, HashCost::DANGEROUS_CHEAP).unwrap();
    let proof = thief.prove(BACK.verb(), BACK.digest(), asked.nonce);
    assert_eq!(root.bring(BACK, &proof), Err(RootError::Proof));
    assert_eq!(root.bring(BACK, &proof), Err(RootError::Proof), "it was used");
}
