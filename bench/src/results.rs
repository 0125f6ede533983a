//! The CSV files of the results, read back: which rows belong to one run, and a column's figures by label.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::failure::{Failure, Result};

/// The column that all rows of one run share.
pub(crate) const RUN: &str = "run_unix_s";

/// The rows of one scenario's CSV.
#[derive(Clone, Default)]
pub(crate) struct Results {
    rows: Vec<Row>,
}

/// One round of one competitor: fields by the name of their column.
#[derive(Clone)]
pub(crate) struct Row {
    fields: HashMap<String, String>,
}

impl Row {
    /// Empty for a column that is not there.
    pub(crate) fn text(&self, column: &str) -> &str {
        self.fields.get(column).map_or("", String::as_str)
    }

    /// Not a number for a column that is not there or holds none.
    pub(crate) fn number(&self, column: &str) -> f64 {
        self.text(column).parse().unwrap_or(f64::NAN)
    }
}

impl Results {
    /// Of `<folder>/<scenario>.csv`; none when there is no such file.
    pub(crate) fn read(folder: &Path, scenario: &str) -> Result<Self> {
        let file = folder.join(format!("{scenario}.csv"));
        if !file.exists() {
            return Ok(Self::default());
        }
        let text =
            fs::read_to_string(&file).map_err(Failure::at(format!("cannot read {}", file.display())))?;
        Self::parse(&text).map_err(|line| {
            Failure::new(format!("{} line {line} has not as many fields as the first", file.display()))
        })
    }

    /// No field of ours holds a comma. Fails with the number of the line that has too many or too few.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, usize> {
        let mut lines = text.lines().zip(1..);
        let Some((header, _)) = lines.next() else { return Ok(Self::default()) };
        let columns: Vec<&str> = header.split(',').collect();
        let mut rows = Vec::new();
        for (line, number) in lines {
            let fields: Vec<&str> = line.split(',').collect();
            if fields.len() != columns.len() {
                return Err(number);
            }
            let fields =
                columns.iter().zip(fields).map(|(&column, field)| (column.to_owned(), field.to_owned()));
            rows.push(Row { fields: fields.collect() });
        }
        Ok(Self { rows })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in which `column` holds `value`.
    pub(crate) fn only(&self, column: &str, value: &str) -> Self {
        Self { rows: self.rows.iter().filter(|row| row.text(column) == value).cloned().collect() }
    }

    /// The rows of the run that was recorded last; all where runs were not told apart yet.
    pub(crate) fn last_run(&self) -> Self {
        self.rows.last().map_or_else(Self::default, |row| self.only(RUN, row.text(RUN)))
    }

    /// What is in a column, each once, in the order in which it came.
    pub(crate) fn values(&self, column: &str) -> Vec<String> {
        let mut values: Vec<String> = Vec::new();
        for row in &self.rows {
            if !values.iter().any(|value| value == row.text(column)) {
                values.push(row.text(column).to_owned());
            }
        }
        values
    }

    /// The finite figures of each label, in the order in which the labels came.
    pub(crate) fn figures(
        &self,
        label: impl Fn(&Row) -> String,
        figure: impl Fn(&Row) -> f64,
    ) -> Vec<(String, Vec<f64>)> {
        let mut labels: Vec<(String, Vec<f64>)> = Vec::new();
        for row in &self.rows {
            let label = label(row);
            // One without figures keeps its place, for it may get some from a later row.
            let place = labels.iter().position(|(known, _)| *known == label).unwrap_or_else(|| {
                labels.push((label, Vec::new()));
                labels.len() - 1
            });
            let value = figure(row);
            if value.is_finite() {
                labels[place].1.push(value);
            }
        }
        labels.retain(|(_, values)| !values.is_empty());
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_from_the_one_before_and_figures_come_by_label() {
        let text = "at_unix_s,run_unix_s,who,us\n1,1,a,5\n2,2,b,7\n3,2,a,nan\n4,2,a,3\n5,2,b,9\n";
        let results = Results::parse(text).expect("is well formed").last_run();
        assert_eq!(results.values("who"), ["b", "a"]);
        let figures = results.figures(|row| row.text("who").to_owned(), |row| row.number("us"));
        assert_eq!(figures, [("b".to_owned(), vec![7.0, 9.0]), ("a".to_owned(), vec![3.0])]);
        assert_eq!(Results::parse("a,b\n1,2\n1\n").err(), Some(3));
    }
}
