/* The vectors of `amos-ref vectors export --format lines` over a port: that of ../ports/amos.c.
   For a port of your own, put it where `add_leaf` and `step_leaf` are called.

   cc -O2 -std=c11 -ffp-contract=off -o run run.c -lm
   amos-ref vectors export --format lines | ./run */
#define main port_main
#include "../ports/amos.c"
#undef main

static char *word(void) { return strtok(NULL, " "); }
static bool next(double *x) /* whether there is one more number in the line */
{
    char *digits = word();
    return digits && (*x = from_bits(digits, 16), true);
}

int main(void)
{
    char id[NAME] = "", *line, *s;
    long cases = 0, compared = 0, wrong = 0;
    double rate = 0, want = 0, allowed = 0, *x;
    bool runs = false; /* this port has float64 and float32, and no recurrence */
    while ((line = read_line())) {
        char *what = strtok(line, " "), *name = word();
        struct leaf *p = leaves;
        while (p < leaves + count && !is(name, p->name))
            p++;
        if (is(what, "case")) {
            start_case();
            closed = is(word(), "closed-form");
            runs = is(s = word(), "float64") || is(s, "float32");
            strncpy(id, name, NAME - 1);
        } else if (runs && is(what, "option")) {
            set_option(name, s = word());
            runs = !is(s, "recurrence");
        } else if (runs && is(what, "leaf")) {
            cases += !count;
            next(&want);
            s = word();
            add_leaf(name, s, word(), want, strstr(id, "/float32"));
        } else if (runs && is(what, "set")) {
            for (x = part_of(p, word()); next(x);)
                x++;
        } else if (runs && is(what, "step")) {
            t = strtod(name, NULL) - !closed;
            next(&rate);
        } else if (runs && is(what, "grad")) {
            for (x = p->g; next(x);)
                x++;
            step_leaf(p, rate);
        } else if (runs && is(what, "want")) {
            for (x = part_of(p, s = word()); next(&want) && next(&allowed); x++, compared++)
                if (!(fabs(*x - want) <= allowed) && ++wrong)
                    printf("%s step %g: %s of %s is %.17g, should be %.17g within %g\n", id,
                           t + !closed, s, name, *x, want, allowed);
        }
    }
    printf("%ld cases, %ld numbers compared, %ld beyond their tolerance\n", cases, compared, wrong);
    return !cases || wrong;
}
