import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'

/** What a problem says to the client alone: words for a person, and a link. */
const NOT_LOGGED = new Set(['type', 'title', 'detail', 'login_url', 'instance'])
/** Words of other lists: the provider's, which may be the reason of our refusal as well, and the audit stream's. */
const OTHER_WORDS = new Set(['oauthError', 'suberror', 'action'])

/**
 * Fails unless the lines of the problem's request in the log say the same as the problem, in members of the same names.
 * `body` is the problem's JSON. `lines` are those of the log, and grow: a request has its own when its answer has ended.
 */
export async function assertLogTells(body: string, lines: readonly string[]): Promise<void> {
  const problem = JSON.parse(body) as Record<string, unknown>
  const told = () =>
    lines
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      // Of a session that ended the audit stream says why it ended, which is a list of its own.
      .filter((line) => line.request_id === problem.request_id && line.action !== 'session_ended')
  const ownOf = () => told().find(({ path, status }) => path !== undefined && status !== undefined)
  for (let turns = 0; ownOf() === undefined && turns < 500; turns += 1) await setTimeout(2)
  const own = ownOf()
  assert.ok(own, `no line of the log is about this request: ${body}`)
  for (const [name, value] of Object.entries(problem)) {
    if (NOT_LOGGED.has(name)) {
      assert.ok(!(name in own), `${name} is for the client`)
      continue
    }
    assert.equal(own[name], value, `${name} of ${body} in ${JSON.stringify(own)}`)
    for (const line of told()) {
      if (name in line) assert.equal(line[name], value, `${name} of ${body} in ${JSON.stringify(line)}`)
      const others = Object.keys(line).filter((one) => one !== name && !OTHER_WORDS.has(one))
      const second = others.find((one) => typeof value === 'string' && line[one] === value)
      assert.equal(second, undefined, `${name} of ${body} has a second name in the log`)
    }
  }
}
