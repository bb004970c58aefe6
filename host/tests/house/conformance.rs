//! The conformance table of the protocol document: every item once, every named test real, every test that cites an
//! item named, and every requirement proved or listed as not yet proved.
//!
//! The rule for requirements: a numbered section that says MUST is cited by a test, or belongs to an item of the
//! table that names a test, or stands in Appendix D with a reason. What stands there and is proved is a complaint too.

use std::collections::{BTreeMap, BTreeSet};

use crate::assert_clean;
use crate::documents::{Citation, GAMESTREAM, citations, sections};
use crate::source::code_only;
use crate::tree::{File, file, files};

/// The number of items in section 13.
const ITEMS: u32 = 125;

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    item: u32,
    sections: Vec<String>,
    /// Named tests, `file::function`.
    tests: Vec<String>,
    /// It says that it is open, at least in part, and why.
    open: bool,
}

/// The rows of section 13.
fn rows(document: &str) -> Vec<Row> {
    sections(document)
        .iter()
        .filter(|(number, _)| number.starts_with("13"))
        .flat_map(|(_, text)| text.lines().filter_map(row))
        .collect()
}

fn row(line: &str) -> Option<Row> {
    let line = line.strip_prefix("| ")?.replace("\\|", "\u{1}");
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [item, _, belongs, proof, ..] = cells.as_slice() else { return None };
    Some(Row {
        item: item.parse().ok()?,
        sections: belongs.split(", ").filter(|s| *s != "-").map(str::to_owned).collect(),
        tests: proof.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        open: proof.split_once("open: ").is_some_and(|(_, why)| !why.trim().is_empty()),
    })
}

/// Complaints about the table itself.
fn check_rows(rows: &[Row], known: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for item in 1..=ITEMS {
        let count = rows.iter().filter(|row| row.item == item).count();
        if count != 1 {
            complaints.push(format!("item {item} appears {count} times"));
        }
    }
    for row in rows {
        if row.item == 0 || row.item > ITEMS {
            complaints.push(format!("item {} is outside 1..={ITEMS}", row.item));
        }
        if row.tests.is_empty() && !row.open {
            complaints.push(format!("item {} names no test and no reason", row.item));
        }
        for section in row.sections.iter().filter(|section| !known.contains(*section)) {
            complaints.push(format!("item {}: there is no section {section}", row.item));
        }
    }
    complaints
}

/// Complaints about named tests that are not there.
fn check_named_tests(rows: &[Row], files: &[File]) -> Vec<String> {
    let texts: BTreeMap<&str, &str> =
        files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    let mut complaints = Vec::new();
    for row in rows {
        for test in &row.tests {
            let Some((path, name)) = test.rsplit_once("::") else {
                complaints.push(format!("item {}: `{test}` is not `file::test`", row.item));
                continue;
            };
            match texts.get(path) {
                None => complaints.push(format!("item {}: there is no file {path}", row.item)),
                Some(text) if !has_test(path, text, name) => {
                    complaints.push(format!("item {}: {path} has no test {name}", row.item));
                }
                Some(_) => {}
            }
        }
    }
    complaints
}

/// Whether the file has a test of this name: in Rust a function under a `test` attribute, in Python any function.
fn has_test(path: &str, text: &str, name: &str) -> bool {
    if path.ends_with(".py") {
        return text.contains(&format!("def {name}("));
    }
    let code = code_only(text);
    ["(", "<"].iter().any(|open| {
        code.match_indices(&format!("fn {name}{open}")).any(|(at, _)| {
            // Attributes lie between the end of the item before and the function.
            let before = &code[..at];
            let from = before.rfind(['}', ';', '{']).unwrap_or(0);
            before[from..].contains("test]") || before[from..].contains("test(")
        })
    })
}

/// Complaints about items that a test cites and whose row names no test of that file.
fn check_cited_items(rows: &[Row], citations: &[Citation]) -> Vec<String> {
    let mut complaints = Vec::new();
    for cited in citations.iter().filter(|cited| cited.in_test) {
        for item in &cited.items {
            let named = rows.iter().any(|row| {
                row.item == *item
                    && row.tests.iter().any(|test| test.starts_with(&format!("{}::", cited.path)))
            });
            if !named {
                complaints.push(format!(
                    "{}:{} cites item {item}, but the table names no test of that file for it",
                    cited.path, cited.line
                ));
            }
        }
    }
    complaints
}

/// Complaints about requirements that nothing proves, and about entries of Appendix D that are no longer true.
fn check_requirements(document: &str, rows: &[Row], citations: &[Citation]) -> Vec<String> {
    let parts = sections(document);
    let required: BTreeSet<&str> = parts
        .iter()
        .filter(|(number, text)| number != "Appendix D" && requires(text))
        .map(|(number, _)| number.as_str())
        .collect();
    let cited = citations.iter().filter(|cited| cited.in_test).flat_map(|cited| &cited.sections);
    let in_table = rows.iter().filter(|row| !row.tests.is_empty()).flat_map(|row| &row.sections);
    let proved: BTreeSet<&str> = cited.chain(in_table).map(String::as_str).collect();
    let listed = not_yet_proved(&parts);

    let unproved = required
        .iter()
        .filter(|section| !proved.contains(*section) && !listed.contains_key(**section))
        .map(|section| {
            format!("section {section} says MUST; no test cites it, Appendix D neither")
        });
    let stale = listed.iter().filter_map(|(section, reason)| {
        if proved.contains(section.as_str()) {
            Some(format!("Appendix D lists {section}, which a test proves by now"))
        } else if !required.contains(section.as_str()) {
            Some(format!("Appendix D lists {section}, which requires nothing"))
        } else if reason.is_empty() {
            Some(format!("Appendix D lists {section} without a reason"))
        } else {
            None
        }
    });
    unproved.chain(stale).collect()
}

/// Whether a text says MUST outside of code spans.
fn requires(text: &str) -> bool {
    text.lines().any(|line| {
        let mut prose = line.split('`').step_by(2);
        prose.any(|piece| piece.split(|c: char| !c.is_alphanumeric()).any(|word| word == "MUST"))
    })
}

/// The entries `- 5.2: reason` of Appendix D.
fn not_yet_proved(parts: &[(String, String)]) -> BTreeMap<String, String> {
    let text =
        parts.iter().find(|(number, _)| number == "Appendix D").map(|(_, text)| text.as_str());
    text.unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("- ")?.split_once(':'))
        .map(|(section, reason)| (section.trim().to_owned(), reason.trim().to_owned()))
        .collect()
}

mod tests {
    use super::*;

    const SAMPLE: &str = "## 7. Video\n### 7.1 Pings\nA host MUST x.\n### 7.2 Layout\nThe word `MUST`.\n\
        ## 13. Checklist\n### 13.8 Video\n| item | statement | sections | proved by |\n|---|---|---|---|\n\
        | 1 | a \\| b | 7.1 | `core/src/a.rs::works` |\n| 2 | c | 7.2, 7.1 | open: no test yet |\n\
        ## Appendix D. Not yet\n- 7.1: later\n";

    fn rust(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn known(document: &str) -> BTreeSet<String> {
        sections(document).into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn every_item_stands_in_the_table_once() {
        let document = file(GAMESTREAM).text;
        assert_clean("table", &check_rows(&rows(&document), &known(&document)));
    }

    #[test]
    fn a_broken_table_is_found() {
        let rows = rows(SAMPLE);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].sections, ["7.2", "7.1"]);
        // All others are missing.
        assert_eq!(check_rows(&rows, &known(SAMPLE)).len(), 123);
        let twice = [rows[0].clone(), rows[0].clone()];
        assert!(check_rows(&twice, &known(SAMPLE))[0].contains("2 times"));
        let silent = [Row { tests: Vec::new(), open: false, ..rows[0].clone() }];
        assert!(check_rows(&silent, &known(SAMPLE)).iter().any(|c| c.contains("no reason")));
        assert!(check_rows(&rows, &BTreeSet::new()).iter().any(|c| c.contains("no section 7.1")));
    }

    #[test]
    fn every_named_test_exists() {
        let complaints = check_named_tests(&rows(&file(GAMESTREAM).text), &files());
        assert_clean("named tests", &complaints);
    }

    #[test]
    fn a_named_test_that_is_gone_is_found() {
        let rows = rows(SAMPLE);
        let real = rust("core/src/a.rs", "mod tests { #[test]\n /// Why.\n fn works() {} }");
        assert_clean("sample", &check_named_tests(&rows, &[real]));
        for gone in
            ["fn works() {}", "#[test] fn other() {} fn works() {}", "// #[test] fn works()"]
        {
            let found = check_named_tests(&rows, &[rust("core/src/a.rs", gone)]);
            assert_eq!(found.len(), 1, "{gone}");
        }
        assert_eq!(check_named_tests(&rows, &[]).len(), 1);
    }

    #[test]
    fn every_cited_item_names_its_test() {
        let complaints = check_cited_items(&rows(&file(GAMESTREAM).text), &citations(&files()));
        assert_clean("cited items", &complaints);
    }

    #[test]
    fn a_cited_item_that_stands_open_is_found() {
        let test =
            "#[cfg(test)] mod tests {\n// spec: gamestream 13 items 1, 2\n#[test] fn works() {} }";
        let cited = citations(&[rust("core/src/a.rs", test)]);
        let found = check_cited_items(&rows(SAMPLE), &cited);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("item 2"));
        let elsewhere = citations(&[rust("core/src/a.rs", "// spec: gamestream 13 item 2\n")]);
        assert_clean("sample", &check_cited_items(&rows(SAMPLE), &elsewhere));
    }

    #[test]
    fn every_requirement_is_proved_or_listed() {
        let document = file(GAMESTREAM).text;
        let complaints = check_requirements(&document, &rows(&document), &citations(&files()));
        assert_clean("requirements", &complaints);
    }

    #[test]
    fn unproved_requirements_and_stale_entries_are_found() {
        // Item 1 names a test and belongs to 7.1, which Appendix D still lists.
        let found = check_requirements(SAMPLE, &rows(SAMPLE), &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("by now"));
        // Without that test the entry is right, and without the entry the section is unproved.
        let open = SAMPLE.replace("`core/src/a.rs::works`", "open: later");
        assert_clean("sample", &check_requirements(&open, &rows(&open), &[]));
        let bare = open.replace("- 7.1: later", "- 7.2: why");
        let found = check_requirements(&bare, &rows(&bare), &[]);
        assert_eq!(found.len(), 2, "{found:?}");
        // A test may also cite the section itself.
        let test = citations(&[rust("core/tests/a.rs", "// spec: gamestream 7.1\n")]);
        let cited = open.replace("- 7.1: later\n", "");
        assert_clean("sample", &check_requirements(&cited, &rows(&cited), &test));
    }
}
