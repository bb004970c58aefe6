//! The log: nobody can make it forget what matters.

use super::*;
use crate::store::{AuditKind, MAX_AUDIT_ROWS};

#[test]
fn the_log_is_bounded_and_read_in_pages() {
    let house = House::new();
    let access = house.open();
    access.inner.store.connection_for_test(|c| {
        c.execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4500)
             INSERT INTO audit (at, kind, actor, action, detail) SELECT i, 'deed', 'a', 'b', 'c' FROM n;",
        )
        .unwrap();
    });
    access.audit(&Actor::Owner, Some(HERE), "restart", &"x".repeat(1000)).unwrap();
    let newest = access.audit_page(None, u32::MAX).unwrap();
    assert_eq!(newest.len(), MAX_AUDIT_PAGE as usize);
    assert_eq!(newest[0].detail.len(), MAX_DETAIL_CHARS);
    let mut count = newest.len();
    let mut last = newest.last().unwrap().id;
    loop {
        let page = access.audit_page(Some(last), 200).unwrap();
        let Some(row) = page.last() else { break };
        assert!(page[0].id < last);
        (last, count) = (row.id, count + page.len());
    }
    assert_eq!(count, AuditKind::Deed.max_rows() as usize);
    assert!(access.audit_page(Some(0), 10).unwrap().is_empty());
    assert_eq!(access.audit_page(Some(u64::MAX), 10).unwrap().len(), 10);
    assert_eq!(MAX_AUDIT_ROWS, 10_000);
}

#[test]
fn who_does_much_pushes_out_what_was_its_own() {
    let (_house, access, _) = claimed();
    let flood = |kind: &str, rows: u32| {
        access.inner.store.connection_for_test(|c| {
            c.execute_batch(&format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO audit (at, kind, actor, action, detail)
                 SELECT i, '{kind}', 'a', 'b', 'c' FROM n;"
            ))
            .unwrap();
        });
    };
    let count = |kind: &str| -> u32 {
        access.inner.store.connection_for_test(|c| {
            let query = "SELECT count(*) FROM audit WHERE kind = ?1";
            c.query_row(query, [kind], |row| row.get(0)).unwrap()
        })
    };
    access.set_viewer_password(Some("viewer password"), None).unwrap();
    log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    let program = Actor::Program("abc".to_owned());
    for (kind, doing) in [
        (
            "viewer",
            &(|| drop(log_in(&access, Role::Viewer, "viewer password", THERE).unwrap()))
                as &dyn Fn(),
        ),
        ("program", &|| access.audit(&program, None, "PATCH /settings", "").unwrap()),
        ("stranger", &|| access.audit(&Actor::Nobody, None, "login-locked", "").unwrap()),
    ] {
        flood(kind, 2_100);
        doing();
        let bound =
            AuditKind::ALL.map(|kind| (format!("{kind:?}").to_lowercase(), kind.max_rows()));
        let bound = bound.iter().find(|(name, _)| name == kind).unwrap().1;
        assert_eq!(count(kind), bound, "{kind}");
    }
    assert_eq!((count("deed"), count("login")), (2, 1), "the claim, the viewer, the owner's login");
    flood("login", 2_100);
    log_in(&access, Role::Owner, PASSWORD, THERE).unwrap();
    assert_eq!(count("deed"), 2);
}
