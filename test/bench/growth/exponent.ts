/** What something costs at one size. */
export type Point = { readonly size: number; readonly cost: number }

/**
 * The exponent of growth: the slope of the least-squares line through the points in a doubly logarithmic plot. 0: the cost
 * stays; 1: it grows with the size; 2: with its square. NaN for fewer than two sizes.
 */
export function exponentOf(points: readonly Point[]): number {
  const xs = points.map(({ size }) => Math.log(size))
  const ys = points.map(({ cost }) => Math.log(cost))
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const [x0, y0] = [mean(xs), mean(ys)]
  const covariance = mean(xs.map((x, n) => (x - x0) * (ys[n]! - y0)))
  return covariance / mean(xs.map((x) => (x - x0) ** 2))
}
