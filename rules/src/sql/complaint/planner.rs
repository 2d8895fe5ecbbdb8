//! What DataFusion's planner says, said otherwise: it speaks of its own types, and to those who program it.

use tidegate_core::diagnostic::nearest;

use super::{Complaints, Rewording};
use crate::sql::names::{functions, is_window};
use crate::sql::spellings::of_function;
use crate::sql::words::{SKIPPED_OR_DOUBLED, is_skipped_or_doubled, plain};

const FIRST_N: &str = "for the first n of each closed window write QUALIFY row_number() OVER (PARTITION BY \
    window_start, window_end ORDER BY ..) <= n";

/// What the planner means by `message`, if it is one of its own.
pub(super) fn theirs(message: &str, complaints: &Complaints<'_>) -> Option<Rewording> {
    if let Some(name) = message.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()) {
        return Some(no_function(name));
    }
    if let Some(rest) = message.strip_prefix("Cannot create filter with non-boolean predicate '") {
        return Some(no_condition(rest));
    }
    let lower = message.to_lowercase();
    if lower.starts_with("window function calls cannot be nested") {
        let help = "compute the inner one in a step before: FROM (SELECT *, inner(..) OVER (..) AS x FROM \
            ..) AS step";
        return Some(
            Rewording::new("a function with OVER stands inside another", help.to_owned()).near("OVER"),
        );
    }
    if message.starts_with("FILTER clause can only be used with aggregate") {
        let help = "use CASE in the argument: CASE WHEN condition THEN x END";
        return Some(Rewording::new("only aggregates take FILTER", help.to_owned()).near("FILTER"));
    }
    // What one of our functions says about its arguments comes wrapped.
    if let Some((_, said)) = message.split_once("coercion failed with: Error during planning: ") {
        return Some(super::ours(said.split_once(". No function matches").map_or(said, |(said, _)| said)));
    }
    None.or_else(|| names_twice(message, complaints))
        .or_else(|| not_grouped(message))
        .or_else(|| arguments(message, complaints))
        .or_else(|| unfit(message))
        .or_else(|| constants(message))
        .or_else(|| unknown(message))
        .or_else(|| is_theirs(message).then(|| Rewording::new(plain(&first_sentence(message)), None)))
}

fn no_function(name: &str) -> Rewording {
    let what = format!("there is no function `{name}`");
    if is_window(name) {
        let help = format!("write `{name}(x) OVER (PARTITION BY device)`");
        return Rewording::new(format!("`{name}` needs OVER: it looks at other rows"), help).near(name);
    }
    let known = functions();
    let near =
        || nearest(name, known.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
    Rewording::new(what, of_function(&name.to_lowercase()).map(str::to_owned).or_else(near)).near(name)
}

/// `rest` of the message is `predicate' returning TYPE`.
fn no_condition(rest: &str) -> Rewording {
    let (predicate, found) = rest.split_once("' returning ").unwrap_or((rest, "no condition"));
    let bare = predicate.rsplit('.').next().unwrap_or(predicate);
    let help = match plain(found).as_str() {
        "text" => format!("compare it with something, such as `{bare} = 'on'`"),
        _ => format!("compare it with something, such as `{bare} > 0`"),
    };
    Rewording::new(format!("`{bare}` is {}, but WHERE and HAVING need a condition", an(&plain(found))), help)
        .near(bare)
}

fn names_twice(message: &str, complaints: &Complaints<'_>) -> Option<Rewording> {
    let (_, rest) = message.split_once("require unique expression names but the expression \"")?;
    let expr = rest.split("\" at position").next()?;
    let name =
        expr.rsplit_once(" AS ").map_or_else(|| expr.rsplit('.').next().unwrap_or(expr), |(_, name)| name);
    let place = complaints.find_second(name);
    Some(
        Rewording::new(format!("two columns are called `{name}`"), "name one of them with AS".to_owned())
            .at(place),
    )
}

fn not_grouped(message: &str) -> Option<Rewording> {
    message.split_once("must be in GROUP BY or an aggregate function")?;
    let column = message.split_once("column \"")?.1.split('"').next()?;
    let bare = column.rsplit('.').next().unwrap_or(column);
    let what = format!("`{bare}` is neither in GROUP BY nor in an aggregate");
    Some(Rewording::new(what, format!("add it to GROUP BY, or write `last_value({bare})`")).near(bare))
}

/// A function does not take its arguments.
fn arguments(message: &str, complaints: &Complaints<'_>) -> Option<Rewording> {
    let lower = message.to_lowercase();
    let is_about_arguments =
        ["failed to coerce arguments", "function '", "does not support zero arguments", "the function "]
            .iter()
            .any(|words| lower.contains(words));
    if !is_about_arguments {
        return None;
    }
    let name = message
        .split('\'')
        .skip(1)
        .step_by(2)
        .find(|name| functions().iter().any(|known| known.eq_ignore_ascii_case(name)))
        .or_else(|| message.split_once("unction ")?.1.split_whitespace().next())?
        .trim_matches(['\'', '`', ':', '.']);
    let calls = complaints.calls(name);
    let (place, argument) = match calls.as_slice() {
        [(place, argument)] => (*place, argument.clone()),
        several => (several.first().and_then(|(place, _)| *place), None),
    };
    let received = ["coercion from ", "but received ", "types: (", "with types ["]
        .iter()
        .find_map(|words| message.split_once(words).map(|(_, rest)| rest))
        .map(|rest| {
            let end = [" to the signature", " (DataType", ")'", "]", ".", "\n"]
                .iter()
                .filter_map(|end| rest.find(end))
                .min();
            let types = plain(rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest));
            types.split(", ").map(|one| an(one.trim_matches(['(', ')']))).collect::<Vec<_>>().join(" and ")
        });
    let gets_text = received.as_deref().is_some_and(|types| types.starts_with("text"));
    let said = match argument.filter(|_| gets_text) {
        Some(argument) => Rewording::new(
            format!("`{name}` takes a number, and `{argument}` is text"),
            format!("write `{name}(CAST({argument} AS DOUBLE))`"),
        ),
        None => {
            let count =
                lower.contains("argument(s)") || lower.contains(" arguments") && !lower.contains("coerce");
            let what = match (count, received.as_deref()) {
                (true, _) => "does not take so many arguments".to_owned(),
                (_, Some(types)) if !types.is_empty() => format!("does not take {types}"),
                _ => "does not take these arguments".to_owned(),
            };
            Rewording::new(format!("`{name}` {what}"), (!count).then(|| "convert with CAST".to_owned()))
        }
    };
    Some(said.at(place).near(name))
}

/// Types that do not fit each other.
fn unfit(message: &str) -> Option<Rewording> {
    let convert = || "convert one of them with CAST".to_owned();
    if let Some((_, rest)) = message.split_once("an not find compatible types to compare ") {
        let (one, list) = rest.split_once(" with ").unwrap_or((rest, ""));
        let list = plain(list.trim_matches(['[', ']']));
        let (one, list) = (an(&plain(one)), list.split(", ").next().unwrap_or_default().to_owned());
        return Some(Rewording::new(
            format!("{one} cannot be compared with a list that has {}", an(&list)),
            convert(),
        ));
    }
    if message.contains("in CASE WHEN expression") {
        let what = "the branches of CASE have types that do not fit each other";
        return Some(Rewording::new(what, "convert them to one type with CAST".to_owned()).near("CASE"));
    }
    let operation = [
        "comparison operation ",
        "arithmetic expression ",
        "regex operation ",
        "concat operation ",
        "bitwise operation ",
        "temporal operation ",
        "for operation ",
    ];
    if let Some(rest) = operation.iter().find_map(|words| message.split_once(words).map(|(_, rest)| rest)) {
        let rest = rest.split_once(" to valid types").map_or(rest, |(rest, _)| rest);
        return Some(Rewording::new(
            format!("these types do not fit each other: {}", plain(rest)),
            convert(),
        ));
    }
    if let Some((types, _)) = message.split_once(" in BETWEEN expression") {
        let types = plain(types.rsplit_once("types ").map_or(types, |(_, types)| types));
        return Some(
            Rewording::new(format!("BETWEEN compares types that do not fit each other: {types}"), convert())
                .near("BETWEEN"),
        );
    }
    if let Some((_, rest)) = message.split_once("nary operator '") {
        let (op, rest) = rest.split_once('\'')?;
        let takes = if op == "NOT" { "a condition" } else { "a number or a span of time" };
        let found = rest
            .rsplit_once(", got ")
            .map_or_else(String::new, |(_, found)| format!(", and not {}", an(&plain(found))));
        return Some(Rewording::new(format!("`{op}` takes {takes}{found}"), None).near(op));
    }
    let of_union =
        ["UNION queries", "UNION field", "Union schemas", "Union queries", "Incompatible inputs for Union"];
    if of_union.iter().any(|words| message.starts_with(words))
        || message.contains("queries have different number of columns")
    {
        let what = if message.contains("number of") {
            "a different number of columns"
        } else {
            "columns of different types"
        };
        return Some(
            Rewording::new(
                format!("the queries of UNION have {what}"),
                "select the same columns in each".to_owned(),
            )
            .near("UNION"),
        );
    }
    None
}

/// Constants that are not what they are used as.
fn constants(message: &str) -> Option<Rewording> {
    if let Some((_, rest)) = message.split_once("Cannot cast string '") {
        let (value, rest) = rest.split_once('\'')?;
        let to = plain(rest.split_once("value of ")?.1.trim_end_matches(" type"));
        return Some(Rewording::new(format!("`'{value}'` is not {}", an(&to)), None).near(value));
    }
    if let Some((_, rest)) = message.split_once("Error parsing timestamp from '") {
        let value = rest.split('\'').next()?;
        if is_skipped_or_doubled(message) {
            let what = format!("`'{value}'` is {SKIPPED_OR_DOUBLED}");
            return Some(Rewording::new(what, "write its offset: '..+02:00'".to_owned()).near(value));
        }
        return Some(
            Rewording::new(
                format!("`'{value}'` is no time"),
                "write `TIMESTAMP '2026-01-31T12:00:00Z'`".to_owned(),
            )
            .near(value),
        );
    }
    if let Some((_, text)) = message.split_once("Invalid input syntax for type interval: ") {
        let text = text.trim_matches('"');
        return Some(
            Rewording::new(format!("`{text}` is no length of time"), "write INTERVAL '10' SECOND".to_owned())
                .near(text),
        );
    }
    if let Some(said) = message.strip_prefix("Parser error: ") {
        let help = "write `INTERVAL '10' SECOND`, or `TIMESTAMP '2026-01-31T12:00:00Z'`";
        return Some(Rewording::new(plain(&first_sentence(said)), help.to_owned()));
    }
    if message.starts_with("unnest() can only be applied") {
        return Some(Rewording::new("`unnest` takes a list or a struct", None).near("unnest"));
    }
    None
}

/// SQL that there is elsewhere.
fn unknown(message: &str) -> Option<Rewording> {
    if message == "TOP" {
        return Some(
            Rewording::new("TOP on an endless stream would stop the rule for good", FIRST_N.to_owned())
                .near("TOP"),
        );
    }
    if message.starts_with("FETCH clause") || message.starts_with("LIMIT BY") {
        let word = message.split(' ').next().unwrap_or_default();
        return Some(
            Rewording::new(
                format!("{word} on an endless stream would stop the rule for good"),
                FIRST_N.to_owned(),
            )
            .near(word),
        );
    }
    if let Some(sql_type) = message.strip_prefix("Unsupported SQL type ") {
        let help = "there are BIGINT, DOUBLE, VARCHAR, BOOLEAN, TIMESTAMP, DATE and INTERVAL";
        return Some(
            Rewording::new(format!("there is no type `{sql_type}`"), help.to_owned()).near(sql_type),
        );
    }
    if let Some((_, ast)) = message.split_once("Unsupported ast node in sqltorel: ") {
        let help = ast.starts_with("Convert").then(|| "write `CAST(x AS DOUBLE)`".to_owned());
        let word = ast.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_uppercase();
        return Some(Rewording::new(format!("`{word}` is not known here"), help).near(word));
    }
    let what = message
        .strip_suffix(" is not supported yet")
        .or_else(|| message.strip_suffix(" is not yet supported"))?;
    Some(Rewording::new(format!("{} is not supported", plain(what)), None))
}

/// Whether a message is the planner's: ours have no words for types, and do not ask for bug reports.
fn is_theirs(message: &str) -> bool {
    message.contains("DataFusion") || message.contains("not implemented") || plain(message) != message
}

fn first_sentence(message: &str) -> String {
    let end = message.find(".\n").or_else(|| message.find(". ")).unwrap_or(message.len());
    message.get(..end).unwrap_or(message).trim_end_matches('.').to_owned()
}

fn an(kind: &str) -> String {
    match kind {
        "text" | "NULL" => kind.to_owned(),
        other => format!("a {other}"),
    }
}
