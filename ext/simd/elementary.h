/* exp, expm1, log, log1p, tanh, the logistic function and the tail of the normal distribution, as straight-line code
 * that compilers vectorise.
 *
 * For kernels: a family's header includes this file, once for each REAL. Nothing is called and nothing branches, so
 * that a loop over these functions becomes vector code at every level. NaN gives NaN; denormal results are right.
 *
 * The polynomials are minimax fits (Remez exchange at 50 digits) of relative error, made for this file; the error of
 * each is given next to it. Largest errors of the functions in ulp, for both types, with and without fused
 * multiply-add:
 *   exp 1.01   expm1_below 1.1   log1p_unit 2   log_above 2   logistic 2.1   log_one_plus_exp 2.1   normal_tail 7
 * tests/ext/test_activation.py holds what is built on them to its bounds.
 */

#if REAL_IS_FLOAT
#define NNX_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, which its low bits then hold */
#define NNX_INTEGER_BITS 0x4b000000 /* of 2^23 */
#define NNX_INTEGER 8388608.0f
#define NNX_ONE_BITS 0x3f800000
#define NNX_HALF_ROOT_BITS 0x3f3504f3 /* of sqrt(1/2) */
#define NNX_MANTISSA 23
#define NNX_LOG2E 1.44269504f
#define NNX_LN2_HIGH 0.693145751953125f /* 15 bits: products with integers below 2^9 are exact */
#define NNX_LN2_LOW 1.42860682e-6f
#define NNX_UNSIGNED uint32_t
#else
#define NNX_MAGIC 6755399441055744.0 /* 1.5 * 2^52 */
#define NNX_INTEGER_BITS 0x4330000000000000
#define NNX_INTEGER 4503599627370496.0
#define NNX_ONE_BITS 0x3ff0000000000000
#define NNX_HALF_ROOT_BITS 0x3fe6a09e667f3bcd
#define NNX_MANTISSA 52
#define NNX_LOG2E 1.4426950408889634
#define NNX_LN2_HIGH 0.6931471805596629565 /* 41 bits: products with integers below 2^12 are exact */
#define NNX_LN2_LOW 2.82352905630315771e-13
#define NNX_UNSIGNED uint64_t
#endif

/* a b + c, rounded once where the level has such an instruction. Written out where accuracy needs it, and where the
 * compiler must have no choice: a value does not depend on where in an array its element lies. */
static inline REAL NAME(fma)(REAL a, REAL b, REAL c)
{
#if defined(__FMA__) || defined(__aarch64__)
#if REAL_IS_FLOAT
    return fmaf(a, b, c);
#else
    return fma(a, b, c);
#endif
#else
    return a * b + c;
#endif
}

static inline NNX_UNSIGNED NAME(bits)(REAL x)
{
    NNX_UNSIGNED b;
    memcpy(&b, &x, sizeof b);
    return b;
}

static inline REAL NAME(from_bits)(NNX_UNSIGNED b)
{
    REAL x;
    memcpy(&x, &b, sizeof x);
    return x;
}

static inline REAL NAME(abs)(REAL x)
{
#if REAL_IS_FLOAT
    return fabsf(x);
#else
    return fabs(x);
#endif
}

static inline REAL NAME(copysign)(REAL x, REAL sign)
{
#if REAL_IS_FLOAT
    return copysignf(x, sign);
#else
    return copysign(x, sign);
#endif
}

/* 2^n for an integer n given as n + NNX_MAGIC; -126 <= n <= 127 (-1022 <= n <= 1023). */
static inline REAL NAME(power_of_two)(REAL shifted)
{
    return NAME(from_bits)((NAME(bits)(shifted) << NNX_MANTISSA) + NNX_ONE_BITS);
}

/* exp(r) - 1 for |r| <= log(2) / 2: r + r^2 q(r). */
static inline REAL NAME(expm1_reduced)(REAL r)
{
#if REAL_IS_FLOAT
    REAL q = 1.3882522282e-3f; /* error 1.3e-8 */
    q = fma_f32(q, r, 8.3665472465e-3f);
    q = fma_f32(q, r, 4.1667200601e-2f);
    q = fma_f32(q, r, 1.6666543423e-1f);
    q = fma_f32(q, r, 4.9999998150e-1f);
#else
    REAL q = 2.5053776308475817301e-8; /* error 1.8e-17 */
    q = fma_f64(q, r, 2.7626092822104318779e-7);
    q = fma_f64(q, r, 2.7557407682993812012e-6);
    q = fma_f64(q, r, 2.480150514271147135e-5);
    q = fma_f64(q, r, 1.9841269718715997628e-4);
    q = fma_f64(q, r, 1.3888888931667112229e-3);
    q = fma_f64(q, r, 8.3333333333897298519e-3);
    q = fma_f64(q, r, 4.1666666666576467812e-2);
    q = fma_f64(q, r, 1.6666666666666588975e-1);
    q = fma_f64(q, r, 5.0000000000000052e-1);
#endif
    return NAME(fma)(r * r, q, r);
}

/* exp(high + low) for a low that is small beside high, and for high in [-150, 89] (float) or [-1000, 710] (double),
 * where n below stays in its range. */
static inline REAL NAME(exp_sum)(REAL high, REAL low)
{
    const REAL n = NAME(fma)(high + low, NNX_LOG2E, NNX_MAGIC) - NNX_MAGIC;
    REAL r = NAME(fma)(-n, NNX_LN2_HIGH, high);
    r = NAME(fma)(-n, NNX_LN2_LOW, r) + low;
    /* 2^n in two factors, as n may be too large for one; a denormal result is rounded once, by the last product */
    const REAL first = NAME(fma)(n, (REAL)0.5, NNX_MAGIC);
    const REAL second = n - (first - NNX_MAGIC) + NNX_MAGIC;
    return (1 + NAME(expm1_reduced)(r)) * NAME(power_of_two)(first) * NAME(power_of_two)(second);
}

/* exp(x) for any x. */
static inline REAL NAME(exp)(REAL x)
{
    const REAL bottom = REAL_IS_FLOAT ? -104 : -746, top = REAL_IS_FLOAT ? 89 : 710; /* 0 and inf from here on */
    x = x < bottom ? bottom : x;
    x = x > top ? top : x;
    return NAME(exp_sum)(x, 0);
}

/* exp(x) - 1 for x <= 0. */
static inline REAL NAME(expm1_below)(REAL x)
{
    const REAL bottom = REAL_IS_FLOAT ? -20 : -40; /* the result is -1 from here on */
    x = x < bottom ? bottom : x;
    const REAL shifted = NAME(fma)(x, NNX_LOG2E, NNX_MAGIC), n = shifted - NNX_MAGIC;
    REAL r = NAME(fma)(-n, NNX_LN2_HIGH, x);
    r = NAME(fma)(-n, NNX_LN2_LOW, r);
    const REAL scale = NAME(power_of_two)(shifted);
    return NAME(fma)(scale, NAME(expm1_reduced)(r), scale - 1);
}

/* log((1 + u) / (1 - u)) = 2 atanh(u) for |u| <= 1/3: 2 u + 2 u^3 p(u^2). */
static inline REAL NAME(log_ratio)(REAL u)
{
    const REAL w = u * u;
#if REAL_IS_FLOAT
    REAL p = 1.4012573227e-1f; /* error 4.6e-9 */
    p = fma_f32(p, w, 1.3999506187e-1f);
    p = fma_f32(p, w, 2.0010853083e-1f);
    p = fma_f32(p, w, 3.3333206513e-1f);
#else
    REAL p = 8.5098091253199639428e-2; /* error 1.3e-18 */
    p = fma_f64(p, w, 4.1697762293951814349e-2);
    p = fma_f64(p, w, 6.0531043208510213093e-2);
    p = fma_f64(p, w, 6.6504792753618174366e-2);
    p = fma_f64(p, w, 7.6932805164305315955e-2);
    p = fma_f64(p, w, 9.0908719373083248385e-2);
    p = fma_f64(p, w, 1.1111111985552058889e-1);
    p = fma_f64(p, w, 1.4285714273916376577e-1);
    p = fma_f64(p, w, 2.00000000000787009e-1);
    p = fma_f64(p, w, 3.3333333333333151696e-1);
#endif
    const REAL twice = u + u;
    return NAME(fma)(twice * w, p, twice);
}

/* log(1 + x) for 0 <= x <= 1. */
static inline REAL NAME(log1p_unit)(REAL x)
{
    return NAME(log_ratio)(x / (2 + x));
}

/* log(x) for normal x > 0. */
static inline REAL NAME(log_above)(REAL x)
{
    /* x = 2^n m with sqrt(1/2) <= m < sqrt(2) */
    const NNX_UNSIGNED one = NNX_ONE_BITS, half_root = NNX_HALF_ROOT_BITS, integer = NNX_INTEGER_BITS;
    const NNX_UNSIGNED b = NAME(bits)(x) + (one - half_root);
    const REAL biased = NAME(from_bits)((b >> NNX_MANTISSA) | integer) - NNX_INTEGER;
    const REAL n = biased - (REAL)(one >> NNX_MANTISSA);
    const REAL m = NAME(from_bits)((b & (((NNX_UNSIGNED)1 << NNX_MANTISSA) - 1)) + half_root);
    const REAL y = NAME(fma)(n, NNX_LN2_LOW, NAME(log_ratio)((m - 1) / (m + 1)));
    return x != x ? x : NAME(fma)(n, NNX_LN2_HIGH, y);
}

/* 1 / (1 + exp(-x)), for negative x as exp(x) / (1 + exp(x)). */
static inline REAL NAME(logistic)(REAL x)
{
    const REAL e = NAME(exp)(-NAME(abs)(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}

/* tanh |x| = -t / (2 + t) with t = exp(-2 |x|) - 1 */
static inline REAL NAME(tanh_of)(REAL x)
{
    const REAL t = NAME(expm1_below)(-2 * NAME(abs)(x));
    return NAME(copysign)(t / (2 + t), x);
}

/* log(1 + exp(x)). */
static inline REAL NAME(log_one_plus_exp)(REAL x)
{
    return (x > 0 ? x : 0) + NAME(log1p_unit)(NAME(exp)(-NAME(abs)(x)));
}

/* P(X > x) for a standard normal X and x >= 0: e R(x) with e = exp(-x^2 / 2), where R(x) = s p(1 - 2 s) and
 * s = 5 / (5 + x). */
static inline REAL NAME(normal_tail)(REAL x, REAL *e)
{
    const REAL far = REAL_IS_FLOAT ? 15 : 40; /* the result is 0 from here on */
    x = x > far ? far : x;
    /* x^2 / 2 as an exact square and a rest: rounded, it would cost the result x^2 / 2 ulp */
    const NNX_UNSIGNED mask = ~(NNX_UNSIGNED)(REAL_IS_FLOAT ? 0xfff : 0x7ffffff);
    const REAL top = NAME(from_bits)(NAME(bits)(x) & mask);
    *e = NAME(exp_sum)((REAL)-0.5 * (top * top), (REAL)-0.5 * ((x - top) * (x + top)));
    const REAL s = 5 / (5 + x), v = 1 - (s + s);
#if REAL_IS_FLOAT
    REAL p = 8.1002563496e-5f; /* error 9.6e-9 */
    p = fma_f32(p, v, -1.9430426166e-4f);
    p = fma_f32(p, v, -5.9227705100e-4f);
    p = fma_f32(p, v, 4.1753167728e-3f);
    p = fma_f32(p, v, -1.3823187224e-2f);
    p = fma_f32(p, v, 3.3001345997e-2f);
    p = fma_f32(p, v, -6.2706789526e-2f);
    p = fma_f32(p, v, 9.9061280565e-2f);
    p = fma_f32(p, v, -1.3307649641e-1f);
    p = fma_f32(p, v, 1.5383860849e-1f);
#else
    REAL p = 4.0278509948608564541e-10; /* error 1.3e-17 */
    p = fma_f64(p, v, 1.4363976973848972332e-9);
    p = fma_f64(p, v, -2.0421839481049319085e-9);
    p = fma_f64(p, v, -1.3063980556669334233e-8);
    p = fma_f64(p, v, 8.7224709212809092972e-9);
    p = fma_f64(p, v, 8.6537308954107028187e-8);
    p = fma_f64(p, v, -6.7548622883285542511e-8);
    p = fma_f64(p, v, -5.538110607213651498e-7);
    p = fma_f64(p, v, 7.9629824322592959413e-7);
    p = fma_f64(p, v, 3.3362289769725809861e-6);
    p = fma_f64(p, v, -9.9526020454252662004e-6);
    p = fma_f64(p, v, -1.1875142259531202591e-5);
    p = fma_f64(p, v, 1.0897982117315410469e-4);
    p = fma_f64(p, v, -1.5957388029535612009e-4);
    p = fma_f64(p, v, -5.9867535513912800872e-4);
    p = fma_f64(p, v, 4.1590133600483936449e-3);
    p = fma_f64(p, v, -1.3823727741190397536e-2);
    p = fma_f64(p, v, 3.3004073234072315514e-2);
    p = fma_f64(p, v, -6.2706631334263146602e-2);
    p = fma_f64(p, v, 9.9061123193995399501e-2);
    p = fma_f64(p, v, -1.3307650057801132002e-1);
    p = fma_f64(p, v, 1.5383860995001259124e-1);
#endif
    return *e * (s * p);
}

#undef NNX_MAGIC
#undef NNX_INTEGER_BITS
#undef NNX_INTEGER
#undef NNX_ONE_BITS
#undef NNX_HALF_ROOT_BITS
#undef NNX_MANTISSA
#undef NNX_LOG2E
#undef NNX_LN2_HIGH
#undef NNX_LN2_LOW
#undef NNX_UNSIGNED
