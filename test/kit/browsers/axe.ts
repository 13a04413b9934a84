import axe, { type AxeResults } from 'axe-core'
import type { Page } from 'playwright-core'

/** What axe-core finds against WCAG 2.2 and good practice, or one of its rules: rule and place. */
export async function flaws(page: Page, rule?: string): Promise<string[]> {
  await page.evaluate(axe.source)
  const options = JSON.stringify(rule ? { runOnly: [rule] } : {})
  const { violations } = await page.evaluate<AxeResults>(`axe.run(${options})`)
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`))
}
