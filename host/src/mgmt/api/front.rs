//! What a person sees who opens the console's address in a browser, or the link by which the host is claimed: plain words,
//! for as long as there are no pages. They say no more than the landing answer does.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::super::startup::Startup;
use super::super::wire::{Landing, Stage};
use super::landing::landing;

/// The front page; open to everybody, as the landing answer is, and no part of the API.
pub(super) async fn front(startup: State<Startup>) -> impl IntoResponse {
    let Json(landing) = landing(startup).await;
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], in_words(&landing))
}

fn in_words(landing: &Landing) -> String {
    let how_far = match &landing.stage {
        Stage::Starting { step, count, doing } => {
            format!(
                "It is starting: step {step} of {count}, {doing}. Load this page again in a moment."
            )
        }
        Stage::Ready => "It is running.".to_owned(),
        Stage::Failed { reason } => {
            format!("It could not start, and nothing can be played until that is mended:\n{reason}")
        }
    };
    let whose = match (landing.claimed, &landing.why_unknown) {
        (Some(true), _) => "It has an owner, who logs in with a password.",
        (Some(false), _) => {
            "It has no owner yet. Whoever has the code that it shows, or the link with a # in it, can become its owner."
        }
        // Mostly that is why it could not start, which stands above already.
        (None, Some(why)) => match &landing.stage {
            Stage::Failed { reason } => why.strip_suffix(reason.as_str()).unwrap_or(why).trim_end(),
            _ => why,
        },
        (None, None) => "It cannot read whether it has an owner.",
    };
    let Landing { product, version, name, .. } = landing;
    let mut text = format!("{product} {version} - \"{name}\"\n\n{how_far}\n{whose}\n");
    if let Some(fingerprint) = &landing.fingerprint {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nThe fingerprint of its certificate, to be compared with the one that your browser shows:\n{fingerprint}\n"
        );
    }
    text.push_str(
        "\nThis version has no pages yet. Everything can be done by calls: the guide \"The owner's door\" goes through \
         them, and /api/v1/openapi.json lists them all.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_how_far_it_is_and_whose() {
        let mut landing = Landing {
            product: "punktfunk".to_owned(),
            version: "1.2.3".to_owned(),
            name: "sofa".to_owned(),
            claimed: Some(false),
            why_unknown: None,
            stage: Stage::Starting { step: 2, count: 4, doing: "plugging it in".to_owned() },
            fingerprint: Some("AB:CD".to_owned()),
        };
        let text = in_words(&landing);
        for part in ["\"sofa\"", "step 2 of 4, plugging it in", "no owner yet", "AB:CD\n"] {
            assert!(text.contains(part), "{text}");
        }
        landing.claimed = Some(true);
        landing.stage = Stage::Failed { reason: "The plug is gone.".to_owned() };
        let text = in_words(&landing);
        assert!(text.contains("The plug is gone.") && text.contains("has an owner"), "{text}");
        landing.claimed = None;
        landing.why_unknown = Some("Nobody knows. Mend the plug.".to_owned());
        let text = in_words(&landing);
        assert!(text.contains("Nobody knows. Mend the plug."), "{text}");
        assert!(!text.contains("become its owner") && !text.contains("It has"), "{text}");
    }
}
