//! Sums of lists in a template, paid with fuel.
//!
//! The engine charges fuel for what a template makes, but not for `x + x` of lists, which doubles a list each time. So every operand of `+`
//! that may be a list goes through a filter of its own here, which pays for its elements: `x + y` is read as `x|sum_operand + y|sum_operand`.

use super::{NAME, fail};
use crate::Result;
use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

const FILTER: &str = "sum_operand";

/// Adds the filter, and takes away the other two ways to join lists: `chain`, which Jinja does not have, and `sum` that starts at a list.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter(FILTER, operand);
    environment.remove_filter("chain");
    environment.add_filter("sum", sum);
}

/// Charges for the elements of a list, which the sum may copy: 32 bytes each.
fn operand(state: &State, value: Value) -> std::result::Result<Value, Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(value);
    }
    if let Some(length) = value.len() {
        state.consume_fuel(length as u64 / 2 + 1)?;
        return Ok(value);
    }
    // Sums of what has no length would grow without being looked at.
    let mut items = Vec::new();
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        items.push(item);
    }
    Ok(items.into())
}

fn sum(
    state: &State,
    values: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    options: Kwargs,
) -> std::result::Result<Value, Error> {
    let named: Option<Value> = options.peek("start").ok();
    if [&start, &named].into_iter().flatten().any(|start| start.kind() != ValueKind::Number) {
        return Err(Error::new(ErrorKind::InvalidOperation, "sum: of numbers alone"));
    }
    minijinja::filters::sum(state, values, attribute, start, options)
}

/// More operands are refused, so that looking at them takes no time.
const MAX_OPERANDS: usize = 4096;
/// Longer tags are refused: the engine goes through `1 + 1 + ...` in as many recursive calls. Published templates have a few hundred at most.
const MAX_TAG_TOKENS: usize = 2048;

/// The template with the filter at each operand that may be a list.
///
/// # Errors
/// What is no template; sums whose operands cannot be told from its text, or too many of them.
pub(super) fn bounded(source: String, syntax: &SyntaxConfig) -> Result<String> {
    check_tags(&source, syntax)?;
    let (shape, operands) = look(&source, syntax)?;
    if operands.is_empty() {
        return Ok(source);
    }
    // Of operands that end at one place the inner one, which was found later, is closed first. No operand begins where another one ends: an
    // operator is between them.
    let mut inserts: Vec<(u32, String)> = operands.into_iter().rev().flat_map(Operand::inserts).collect();
    inserts.sort_by_key(|(at, _)| *at);
    let cannot_tell = || fail("the operands of a sum cannot be told apart");
    let (mut out, mut copied) = (String::with_capacity(source.len() + 16 * inserts.len()), 0);
    for (at, text) in inserts {
        out.push_str(source.get(copied..at as usize).ok_or_else(cannot_tell)?);
        out.push_str(&text);
        copied = at as usize;
    }
    out.push_str(source.get(copied..).ok_or_else(cannot_tell)?);
    let (new_shape, unpaid) = look(&out, syntax)?;
    if unpaid.is_empty() && new_shape == shape { Ok(out) } else { Err(cannot_tell()) }
}

fn check_tags(source: &str, syntax: &SyntaxConfig) -> Result<()> {
    let mut length = 0;
    for token in tokenize(source, false, syntax.clone()) {
        match token.map_err(|e| fail(super::words(&e)))?.0 {
            Token::VariableStart | Token::BlockStart => length = 0,
            _ => length += 1,
        }
        if length > MAX_TAG_TOKENS {
            return Err(fail(format!("a tag of more than {MAX_TAG_TOKENS} words and signs")));
        }
    }
    Ok(())
}

/// An operand of `+` that may be a list and does not go through the filter yet.
struct Operand {
    span: Span,
    /// An expression that binds less than a filter, which needs parentheses. Of all others the engine knows the end, not the start.
    is_loose: bool,
}

impl Operand {
    fn of(expression: &Expr) -> Self {
        Self { span: expression.span(), is_loose: matches!(expression, Expr::BinOp(_) | Expr::IfExpr(_)) }
    }

    fn inserts(self) -> impl Iterator<Item = (u32, String)> {
        let open = self.is_loose.then(|| (self.span.start_offset, "(".to_string()));
        let close = if self.is_loose { ")" } else { "" };
        open.into_iter().chain([(self.span.end_offset, format!("{close}|{FILTER}"))])
    }
}

/// The kinds of a template's expressions in order, this filter aside, and the operands that are still to be paid.
fn look(source: &str, syntax: &SyntaxConfig) -> Result<(Vec<&'static str>, Vec<Operand>)> {
    let template = parse(source, NAME, syntax.clone()).map_err(|e| fail(super::words(&e)))?;
    let is_paid = |operand: &Expr| matches!(operand, Expr::Filter(filter) if filter.name == FILTER);
    let mut walk = Walk { statements: vec![&template], expressions: Vec::new() };
    let (mut shape, mut operands) = (Vec::new(), Vec::new());
    while let Some(expression) = walk.next() {
        if !is_paid(expression) {
            shape.push(expression.description());
        }
        let Expr::BinOp(sum) = expression else { continue };
        if !matches!(sum.op, BinOpKind::Add) || is_no_list(expression) {
            continue;
        }
        operands.extend([&sum.left, &sum.right].into_iter().filter(|operand| !is_paid(operand)).map(Operand::of));
        if operands.len() > MAX_OPERANDS {
            return Err(fail(format!("sums of more than {MAX_OPERANDS} operands")));
        }
    }
    Ok((shape, operands))
}

/// Filters of which a text or a number comes.
const NO_LISTS: [&str; 10] =
    ["trim", "string", "tojson", "join", "length", "upper", "lower", "title", "capitalize", "int"];

/// Whether an expression is a text, a number or an error whatever its variables are.
fn is_no_list(mut expression: &Expr) -> bool {
    loop {
        match expression {
            Expr::Const(constant) => {
                return !matches!(constant.value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map);
            }
            Expr::BinOp(pair) => match pair.op {
                // A list and anything else have no sum.
                BinOpKind::Add if is_no_list(&pair.right) => return true,
                BinOpKind::Add => expression = &pair.left,
                BinOpKind::Mul | BinOpKind::ScAnd | BinOpKind::ScOr => return false,
                _ => return true,
            },
            Expr::Filter(filter) => return NO_LISTS.contains(&filter.name),
            Expr::UnaryOp(_) | Expr::Compare(_) | Expr::Test(_) => return true,
            _ => return false,
        }
    }
}

/// All expressions of a template, without recursion.
struct Walk<'t, 's> {
    statements: Vec<&'t Stmt<'s>>,
    expressions: Vec<&'t Expr<'s>>,
}

impl<'t, 's> Walk<'t, 's> {
    fn next(&mut self) -> Option<&'t Expr<'s>> {
        while self.expressions.is_empty() {
            let statement = self.statements.pop()?;
            self.open(statement);
        }
        let expression = self.expressions.pop()?;
        self.parts(expression);
        Some(expression)
    }

    fn open(&mut self, statement: &'t Stmt<'s>) {
        match statement {
            Stmt::Template(all) => self.statements.extend(&all.children),
            Stmt::EmitExpr(emit) => self.expressions.push(&emit.expr),
            Stmt::ForLoop(of) => {
                self.expressions.extend([&of.target, &of.iter].into_iter().chain(&of.filter_expr));
                self.statements.extend(of.body.iter().chain(&of.else_body));
            }
            Stmt::IfCond(of) => {
                self.expressions.push(&of.expr);
                self.statements.extend(of.true_body.iter().chain(&of.false_body));
            }
            Stmt::WithBlock(with) => {
                self.expressions.extend(with.assignments.iter().flat_map(|(name, value)| [name, value]));
                self.statements.extend(&with.body);
            }
            Stmt::Set(set) => self.expressions.extend([&set.target, &set.expr]),
            Stmt::SetBlock(set) => {
                self.expressions.extend([&set.target].into_iter().chain(&set.filter));
                self.statements.extend(&set.body);
            }
            Stmt::AutoEscape(block) => {
                self.expressions.push(&block.enabled);
                self.statements.extend(&block.body);
            }
            Stmt::FilterBlock(block) => {
                self.expressions.push(&block.filter);
                self.statements.extend(&block.body);
            }
            Stmt::Macro(of) => {
                self.expressions.extend(of.args.iter().chain(&of.defaults));
                self.statements.extend(&of.body);
            }
            Stmt::CallBlock(block) => {
                self.expressions.push(&block.call.expr);
                self.arguments(&block.call.args);
                self.expressions.extend(block.macro_decl.args.iter().chain(&block.macro_decl.defaults));
                self.statements.extend(&block.macro_decl.body);
            }
            Stmt::Do(of) => {
                self.expressions.push(&of.call.expr);
                self.arguments(&of.call.args);
            }
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
        }
    }

    fn parts(&mut self, expression: &'t Expr<'s>) {
        let out = &mut self.expressions;
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(of) => out.extend([&of.expr].into_iter().chain(&of.start).chain(&of.stop).chain(&of.step)),
            Expr::UnaryOp(of) => out.push(&of.expr),
            Expr::BinOp(of) => out.extend([&of.left, &of.right]),
            Expr::Compare(of) => out.extend([&of.expr].into_iter().chain(of.ops.iter().map(|op| &op.expr))),
            Expr::IfExpr(of) => out.extend([&of.test_expr, &of.true_expr].into_iter().chain(&of.false_expr)),
            Expr::GetAttr(of) => out.push(&of.expr),
            Expr::GetItem(of) => out.extend([&of.expr, &of.subscript_expr]),
            Expr::List(of) => out.extend(&of.items),
            Expr::Tuple(of) => out.extend(&of.items),
            Expr::Map(of) => out.extend(of.keys.iter().chain(&of.values)),
            Expr::Filter(of) => {
                out.extend(&of.expr);
                self.arguments(&of.args);
            }
            Expr::Test(of) => {
                out.push(&of.expr);
                self.arguments(&of.args);
            }
            Expr::Call(of) => {
                out.push(&of.expr);
                self.arguments(&of.args);
            }
        }
    }

    fn arguments(&mut self, arguments: &'t [CallArg<'s>]) {
        self.expressions.extend(arguments.iter().map(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) | CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                value
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_may_be_lists_are_marked() {
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap();
        for (template, expected) in [
            ("{{ 'a' + b + 'c' }} + {# a + b #}{{ loop.index0 + 1 }}{{ a | trim + b }}{{ -a + b }}", None),
            ("{% set x = x + x %}", Some("{% set x = x|sum_operand + x|sum_operand %}")),
            ("{{ 'é' }}é{{ x[1:] + [b] }}", Some("{{ 'é' }}é{{ x[1:]|sum_operand + [b]|sum_operand }}")),
            (
                "{{ f(a+b)[0] + (c or d) * 2 }}",
                Some("{{ f(a|sum_operand+b|sum_operand)[0]|sum_operand + ((c or d) * 2)|sum_operand }}"),
            ),
            (
                "{% for m in (a.b) + (b if c else d) if c | list + d['e'] %}{% endfor %}",
                Some(
                    "{% for m in (a.b|sum_operand) + ((b if c else d)|sum_operand) if c | list|sum_operand + d['e']|sum_operand %}{% endfor %}",
                ),
            ),
            ("{{ a + b + c }}", Some("{{ (a|sum_operand + b|sum_operand)|sum_operand + c|sum_operand }}")),
            (
                "{{ (a + b) | list + f() }}",
                Some("{{ (a|sum_operand + b|sum_operand) | list|sum_operand + f()|sum_operand }}"),
            ),
        ] {
            let found = bounded(template.into(), &syntax).unwrap();
            assert_eq!(found, expected.unwrap_or(template));
        }
    }
}
