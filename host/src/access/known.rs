//! Browsers that have logged in before: how one shows it, so that strangers who try passwords cannot make it wait.
//!
//! With each login a browser gets a second text to keep: a random name and the host's signature over it (HMAC). It opens
//! nothing. All it buys is to be counted by itself at the next login, apart from everybody else at its address and in its
//! network. The key is made of what is kept of the password, so that nothing more need be stored: another password, and
//! another owner, make every such text worthless.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::login::Role;
use super::secret::{SecretText, from_hex, hex, sha256};
use super::{Random, RandomError};

/// What the key begins with.
const DOMAIN: &[u8] = b"punktfunk known browser v1\0";
/// The length of the name and of the signature in hex digits.
const NAME_DIGITS: usize = 32;
const TEXT_DIGITS: usize = NAME_DIGITS + 64;

/// A text for a browser that has just logged in. `kept` is what is kept of the role's password.
pub(super) fn issue(random: &Random, role: Role, kept: &str) -> Result<SecretText, RandomError> {
    let mut name = [0; NAME_DIGITS / 2];
    random(&mut name)?;
    let signature = hmac::sign(&key(role, kept), &name);
    let mut text = Zeroizing::new(String::with_capacity(TEXT_DIGITS));
    text.push_str(&hex(&name));
    text.push_str(&hex(signature.as_ref()));
    Ok(SecretText::new(text))
}

/// The name of the browser that shows this text, if this host gave it out for this role and password.
pub(super) fn recognise(text: &str, role: Role, kept: &str) -> Option<[u8; NAME_DIGITS / 2]> {
    let (name, signature) = text.as_bytes().split_at_checked(NAME_DIGITS)?;
    let name = from_hex::<{ NAME_DIGITS / 2 }>(name)?;
    let signature = from_hex::<32>(signature)?;
    // In constant time.
    hmac::verify(&key(role, kept), &*name, &*signature).ok()?;
    Some(*name)
}

fn key(role: Role, kept: &str) -> hmac::Key {
    let parts = [DOMAIN, role.name().as_bytes(), b"\0", kept.as_bytes()].concat();
    hmac::Key::new(hmac::HMAC_SHA256, &sha256(&parts))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_what_was_given_out_for_this_role_and_password_counts() {
        let random: Random = Arc::new(super::super::secret::system_random);
        let text = issue(&random, Role::Owner, "kept").unwrap();
        let text = text.reveal();
        let name = recognise(text, Role::Owner, "kept").unwrap();
        assert_eq!(hex(&name), text[..NAME_DIGITS]);
        assert_eq!(recognise(text, Role::Viewer, "kept"), None, "a viewer's is no owner's");
        assert_eq!(recognise(text, Role::Owner, "kept of another"), None);
        let other = issue(&random, Role::Owner, "kept").unwrap();
        let mixed = format!("{}{}", &other.reveal()[..NAME_DIGITS], &text[NAME_DIGITS..]);
        let longer = format!("{text}0");
        for wrong in ["", &text[..95], &longer, &mixed, &"ü".repeat(48), &"0".repeat(96)] {
            assert_eq!(recognise(wrong, Role::Owner, "kept"), None, "{wrong}");
        }
    }
}
