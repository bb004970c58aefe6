//! The owner's room, asked by the door: whose a cookie or a token is.

use super::guard::{Claimed, Credentials, Who};
use crate::access::{Access, Role};

impl Credentials for Access {
    fn claimed(&self) -> Claimed {
        if self.is_claimed() { Claimed::Yes } else { Claimed::No }
    }

    fn logged_in(&self, cookie: &str) -> Option<Who> {
        Some(match self.session(cookie)?.role {
            Role::Owner => Who::Owner,
            Role::Viewer => Who::Viewer,
        })
    }

    fn csrf_matches(&self, cookie: &str, csrf: &str) -> bool {
        self.session(cookie).is_some_and(|session| session.csrf_matches(csrf))
    }

    fn token(&self, token: &str) -> Option<Who> {
        let grant = Self::token(self, token)?;
        Some(Who::Token { id: grant.id, scopes: grant.scopes })
    }
}
