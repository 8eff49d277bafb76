/* The vectors of `amos-ref vectors export --format zip` (or json) over a port: here ../ports/amos.c, of which this uses
   the step and what reads JSON. For a port of your own, put its step where `step` is called.

   cc -O2 -std=c11 -ffp-contract=off -o run run.c -lm
   amos-ref vectors export --format zip | ./run

   Every case runs from its first pre; theta, v, b and m must stay within tolerance of post. */

#define main port_main
#include "../ports/amos.c"
#undef main

static long compared, wrong;

/* What follows the value, an object, that begins at `s`. */
static const char *after(const char *s)
{
    int depth = 0;
    do
        depth += (*s == '{') - (*s == '}');
    while (*s++ && depth);
    return s;
}

static void compare(const char *id, long t, const struct leaf *p, const char *stored, int which)
{
    static double *want, *allowed;
    const char *name = parts[closed][which];
    const char *post = name ? member(needed(stored, "post"), name) : NULL, *tolerance = needed(stored, "tolerance");
    const double *got = part_of(p, which);
    long n = length_of(p, which);
    if (!post || *tolerance == 'n')
        return; /* no momentum, or nothing is known of how far is too far */
    read_bits(post, want = zeros(want, n), n, which == 0 && p->single);
    read_bits(needed(tolerance, name), allowed = zeros(allowed, n), n, false);
    for (long i = 0; i < n; i++, compared++)
        if (!(fabs(got[i] - want[i]) <= allowed[i]) && ++wrong) /* a NaN is wrong too */
            printf("%.*s step %ld: %s[%ld] of %s is %.17g, should be %.17g within %.2g\n",
                   (int)strcspn(id, "\""), id, t, name, i, p->name, got[i], want[i], allowed[i]);
}

static void put_pre(struct leaf *p, const char *pre)
{
    for (int which = 0; which < 4 && parts[closed][which]; which++) {
        const char *bits = member(pre, parts[closed][which]);
        if (bits)
            read_bits(bits, part_of(p, which), length_of(p, which), which == 0 && p->single);
    }
}

static void run(const char *entry, const char *id, bool single)
{
    const char *s = needed(entry, "leaves"), *next = needed(entry, "steps") + 1, *stored = next;
    const char *cycle = member(entry, "cycle"), *again = cycle;
    bool injected = strstr(needed(entry, "flags"), "\"injected-state\"");
    (closed ? read_plan : read_options)(needed(entry, "options"));
    for (count = 0; *s++ != '}' && *s == '"'; s = after(start_leaf(&leaves[count++], s)))
        leaves[count].single = single;
    long first = strtol(needed(next, "t"), NULL, 10);
    for (long t = first; *next == '{'; t++) {
        long coming = strtol(needed(next, "t"), NULL, 10);
        t = cycle ? t : coming; /* without a cycle every step is stored, and the count may jump */
        bool is_stored = coming == t; /* else only its gradients are, in the cycle */
        power = (1 - options.beta) + options.beta * power;
        plan.t = (double)t;
        if (cycle) /* its next object, or the first again */
            again = *again == '[' || *again == ']' ? cycle + 1 : again + 1;
        if (is_stored)
            stored = next, next = after(next), next += *next == ',';
        double xi = number(stored, "learning_rate", 0);
        for (int i = 0; i < count; i++) {
            struct leaf *p = &leaves[i];
            const char *at = is_stored ? needed(needed(stored, "leaves"), p->name) : NULL;
            const char *g = at ? needed(at, "g") : needed(again, p->name);
            if (at && (t == first || (t == first + 1 && injected)))
                put_pre(p, needed(at, "pre"));
            if (*g == '"') { /* null: the leaf is skipped, the count goes on */
                read_bits(g, p->g, p->size, single);
                if (closed)
                    step_closed(p, shrink_of(&plan, plan.t + late), &plan);
                else
                    step(p, xi, power, &options);
            }
            for (int which = 0; at && which < 4; which++)
                compare(id, t, p, at, which);
        }
        if (cycle)
            again = after(again);
    }
}

int main(int argc, char **argv)
{
    int cases = 0;
    broken = argc > 1 && !strcmp(argv[1], "--broken=extra_l2-sign");
    late = argc > 1 && !strcmp(argv[1], "--broken=t-from-1");
    for (const char *line; (line = read_line());) {
        const char *entry = strchr(line, '{'), *id;
        if (strncmp(line, "   {\"id\":\"", 10) || member(entry, "error")) /* what is to be refused is not tried here */
            continue;
        id = needed(entry, "id") + 1;
        closed = member(needed(entry, "options"), "alpha_0");
        if (says(needed(entry, "options"), "decay", "recurrence"))
            continue; /* which this port does not have */
        if (strstr(id, "/float64\"") == id + strcspn(id, "/") || strstr(id, "/float32\"") == id + strcspn(id, "/"))
            run(entry, id, !strncmp(id + strcspn(id, "/"), "/float32", 8)), cases++;
    }
    printf("%d cases, %ld numbers compared, %ld beyond their tolerance\n", cases, compared, wrong);
    return !cases || wrong;
}
