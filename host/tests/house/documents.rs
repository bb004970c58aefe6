//! What the documents promise: links that lead somewhere, and a protocol document whose sections can be cited.

use std::collections::BTreeSet;

use crate::assert_clean;
use crate::source::{code_only, only_for_tests, test_ranges};
use crate::tree::{File, file, files};

/// The protocol document that `spec: gamestream ..` comments cite.
pub(crate) const GAMESTREAM: &str = "docs/protocol/gamestream.md";

/// One `spec: gamestream ..` comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Citation {
    /// The file it stands in.
    pub(crate) path: String,
    /// Its line, from 1.
    pub(crate) line: usize,
    /// Cited sections: `7.5`, `13`, `Appendix A`.
    pub(crate) sections: Vec<String>,
    /// Cited items of the conformance checklist.
    pub(crate) items: Vec<u32>,
    /// It stands in code that only tests have.
    pub(crate) in_test: bool,
}

/// All citations in code and tests.
pub(crate) fn citations(files: &[File]) -> Vec<Citation> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".rs") || f.path.ends_with(".py")) {
        // The rules' own samples are no citations.
        if file.path.starts_with("host/tests/house/") {
            continue;
        }
        let ranges = test_ranges(&code_only(&file.text));
        let test_file = file.path.contains("/tests/")
            || file.path.ends_with(".py")
            || only_for_tests(file, files);
        for (at, mark) in file.text.match_indices("spec: gamestream ") {
            let tail = file.text[at + mark.len()..].lines().next().unwrap_or_default();
            let (sections, items) = parse_citation(tail);
            found.push(Citation {
                path: file.path.clone(),
                line: file.text[..at].matches('\n').count() + 1,
                sections,
                items,
                in_test: test_file || ranges.iter().any(|(from, to)| (*from..*to).contains(&at)),
            });
        }
    }
    found
}

/// Reads `7.5, 7.6`, `13 item 28`, `13 items 20-27, 30; 3.2`, `Appendix A`; the first other word ends it.
fn parse_citation(tail: &str) -> (Vec<String>, Vec<u32>) {
    let (mut sections, mut items): (Vec<String>, Vec<u32>) = (Vec::new(), Vec::new());
    let (mut counting_items, mut appendix) = (false, false);
    for raw in tail.split([' ', ',', ';']).filter(|raw| !raw.is_empty()) {
        let word = raw.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        match word {
            "" | "and" | "section" | "sections" => {}
            "item" | "items" => {
                // `13 item 28, 13 item 35`: what looked like an item was the section.
                if counting_items && items.last() == Some(&13) {
                    items.pop();
                }
                counting_items = true;
            }
            "Appendix" | "appendix" => appendix = true,
            letter if appendix && letter.len() == 1 => {
                sections.push(format!("Appendix {letter}"));
                appendix = false;
            }
            number if number.starts_with(|c: char| c.is_ascii_digit()) => {
                match item_range(number) {
                    Some(range) if counting_items => items.extend(range),
                    _ if is_section(number) => sections.push(number.to_owned()),
                    _ => break,
                }
            }
            _ => break,
        }
        if raw.ends_with(')') || raw.ends_with(':') {
            break;
        }
    }
    (sections, items)
}

fn is_section(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// `28` or `20-27`.
fn item_range(text: &str) -> Option<std::ops::RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// One numbered part of the document: heading number and its own text, without that of its subsections.
pub(crate) fn sections(document: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in document.lines() {
        if let Some(number) = heading_number(line) {
            found.push((number, String::new()));
        } else if let Some((_, text)) = found.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

fn heading_number(line: &str) -> Option<String> {
    let heading = line.strip_prefix("### ").or_else(|| line.strip_prefix("## "))?;
    let mut words = heading.split(' ');
    let first = words.next()?.trim_end_matches('.');
    if first == "Appendix" {
        return Some(format!("Appendix {}", words.next()?.trim_end_matches('.')));
    }
    (first.starts_with(|c: char| c.is_ascii_digit()) && is_section(first)).then(|| first.to_owned())
}

/// Complaints about citations of sections that the document has not, or that name nothing.
fn check_citations(document: &str, citations: &[Citation]) -> Vec<String> {
    let known: BTreeSet<String> =
        sections(document).into_iter().map(|(number, _)| number).collect();
    let mut complaints = Vec::new();
    for cited in citations {
        let place = format!("{}:{}", cited.path, cited.line);
        if cited.sections.is_empty() {
            complaints.push(format!("{place}: the citation names no section"));
        }
        for section in &cited.sections {
            // `7.5.3` is rule 3 of section 7.5.
            let outer: Vec<&str> = section.split('.').take(2).collect();
            if !known.contains(section) && !known.contains(&outer.join(".")) {
                complaints.push(format!("{place}: {GAMESTREAM} has no section {section}"));
            }
        }
    }
    complaints
}

/// The targets of a Markdown text's relative links.
fn relative_links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Code spans are the odd pieces between back-ticks.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for (at, mark) in prose.match_indices("](") {
            let target = prose[at + mark.len()..].split([')', ' ']).next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            let path = target.split('#').next().unwrap_or_default();
            if !outside && !path.is_empty() {
                found.push(path.to_owned());
            }
        }
    }
    found
}

/// Complaints about links of one document to files that are not there.
fn check_links(document: &File, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    relative_links(&document.text)
        .into_iter()
        .filter(|target| !exists(&format!("{folder}/{target}")))
        .map(|target| format!("{}: the link to {target} leads nowhere", document.path))
        .collect()
}

/// The guide's pages that the front page does not lead to.
fn unlisted_guides(front: &str, files: &[File]) -> Vec<String> {
    let links = relative_links(front);
    let pages = files.iter().map(|file| &file.path).filter(|path| path.starts_with("docs/guide/"));
    pages
        .filter(|page| !links.contains(page))
        .map(|page| format!("README.md: nothing leads to {page}"))
        .collect()
}

/// Complaints about calls that a guide names, as in `GET /status`, and the API does not have.
fn check_calls(guide: &File, api: &serde_json::Value) -> Vec<String> {
    const METHODS: [&str; 5] = ["GET", "PUT", "POST", "PATCH", "DELETE"];
    let spans = guide.text.split('`').skip(1).step_by(2);
    spans
        .filter_map(|span| span.split_once(' '))
        .filter(|(method, path)| METHODS.contains(method) && path.starts_with('/'))
        .filter(|(method, path)| {
            let path = path.strip_prefix("/api/v1").unwrap_or(path);
            let known = &api["paths"][format!("/api/v1{path}")];
            known[method.to_lowercase()].is_null()
        })
        .map(|(method, path)| format!("{}: there is no call {method} {path}", guide.path))
        .collect()
}

mod tests {
    use super::*;
    use crate::tree::root;

    #[test]
    fn the_front_page_leads_to_every_guide() {
        assert_clean("guides", &unlisted_guides(&file("README.md").text, &files()));
        let page = |name: &str| File { path: format!("docs/guide/{name}"), text: String::new() };
        let found = unlisted_guides(
            "[a](docs/guide/a.md) `docs/guide/b.md`",
            &[page("a.md"), page("b.md")],
        );
        assert_eq!(found, ["README.md: nothing leads to docs/guide/b.md"]);
    }

    #[test]
    fn calls_that_guides_name_are_calls_of_the_api() {
        let api = std::fs::read_to_string(root().join("host/openapi.json")).unwrap();
        let api: serde_json::Value = serde_json::from_str(&api).unwrap();
        let guides = files().into_iter().filter(|file| file.path.starts_with("docs/guide/"));
        let complaints: Vec<String> = guides.flat_map(|guide| check_calls(&guide, &api)).collect();
        assert_clean("calls", &complaints);
        let text = "`GET /status` `POST /api/v1/os/check` `POST /status` `GET /nothing` `GET it`";
        let sample = File { path: "docs/guide/a.md".to_owned(), text: text.to_owned() };
        assert_eq!(check_calls(&sample, &api).len(), 2);
    }

    #[test]
    fn links_lead_somewhere() {
        let exists = |path: &str| root().join(path.trim_start_matches('/')).exists();
        let complaints: Vec<String> = files()
            .iter()
            .filter(|file| file.path.ends_with(".md"))
            .flat_map(|file| check_links(file, &exists))
            .collect();
        assert_clean("links", &complaints);
    }

    #[test]
    fn a_dead_link_is_found() {
        let text = "see [a](there.md#x), [b](gone.md), [c](https://example.org), [d](#here) `[e](code.md)`";
        let sample = File { path: "docs/a.md".to_owned(), text: text.to_owned() };
        let found = check_links(&sample, &|path| path == "docs/there.md");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("gone.md"));
    }

    #[test]
    fn cited_sections_exist() {
        let complaints = check_citations(&file(GAMESTREAM).text, &citations(&files()));
        assert_clean("citations", &complaints);
    }

    #[test]
    fn a_wrong_citation_is_found() {
        let text =
            "// spec: gamestream 7.5 rule 3\n// spec: gamestream 7.99\n// spec: gamestream about\n";
        let sample = File { path: "core/src/a.rs".to_owned(), text: text.to_owned() };
        let found = check_citations("## 7. Video\n### 7.5 Blocks\n", &citations(&[sample]));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn citations_are_read_in_all_their_forms() {
        let cases: &[(&str, &[&str], &[u32])] = &[
            ("7.5", &["7.5"], &[]),
            ("7.5, 7.6 and 7.8).", &["7.5", "7.6", "7.8"], &[]),
            ("13 item 28", &["13"], &[28]),
            ("13 items 20-22, 25", &["13"], &[20, 21, 22, 25]),
            ("13 item 28, 13 item 35", &["13"], &[28, 35]),
            ("13 item 53; 4.3", &["13", "4.3"], &[53]),
            ("9.1 says 13 things", &["9.1"], &[]),
            ("Appendix A, 7.8", &["Appendix A", "7.8"], &[]),
            ("appendix C", &["Appendix C"], &[]),
        ];
        for (tail, sections, items) in cases {
            let (got_sections, got_items) = parse_citation(tail);
            assert_eq!(
                (got_sections.as_slice(), got_items.as_slice()),
                (sections.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice(), *items),
                "{tail}"
            );
        }
    }
}
