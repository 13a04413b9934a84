import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { openStateFile } from '../../src/cli/dev/state-file.ts'
import { createLiveLog } from '../../src/demo/dev/live-log.ts'
import { startPanel } from '../../src/demo/dev/panel-server.ts'
import { createDevProject, signInAs, startDev } from '../kit/dev-server.ts'
import { eventually } from '../kit/store/store-contestants.ts'

describe('what fails in a development server', () => {
  test('a state that cannot be written ends nothing, and the live log tells so once', async (t) => {
    const project = await createDevProject()
    t.after(project.close)
    let attempts = 0
    const write = () => {
      attempts += 1
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
    }
    const dev = await startDev({ ...project, stateFile: { ...project.stateFile, write } })
    t.after(dev.server.close)
    const browser = dev.browser()
    await signInAs(dev, browser, 'ada')
    await eventually(() => attempts > 0)
    assert.equal((await browser.fetch('/bff/user')).json().sub, 'ada')
    await eventually(() => attempts > 1)
    const log = await fetch(`${dev.server.panelUrl}/api/log`)
    const { value = '' } = await log.body!.pipeThrough(new TextDecoderStream()).getReader().read()
    assert.equal(value.split('ENOSPC').length, 2)
  })

  test('a state file of another version, or one that is not whole, is read as none', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'cloakroom-dev-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const file = openStateFile(8080, { env: { XDG_STATE_HOME: folder }, folder })
    assert.equal(file.read(), undefined)
    mkdirSync(dirname(file.path), { recursive: true })
    for (const text of ['', 'null', '{', '{"version":2}', '{"version":1}', '{"version":1,"issuer":"x"}']) {
      writeFileSync(file.path, text)
      assert.equal(file.read(), undefined, text)
    }
  })

  test('a panel whose sessions cannot be read answers 500, goes on, and says why in the live log', async (t) => {
    const defect = async () => {
      throw new Error('no such store')
    }
    const live = createLiveLog()
    const panel = await startPanel({
      ...{
        port: 0,
        log: live,
        switches: { names: [], state: defect, change: defect, answerFor: () => undefined },
      },
      about: { appUrl: '', provider: '', issuer: '', jwksUrl: '' },
    })
    t.after(panel.close)
    const change = { method: 'POST', headers: { 'x-csrf': '1' } }
    const answers = [
      await fetch(`${panel.origin}/api/state`),
      await fetch(`${panel.origin}/api/switches/idle`, change),
    ]
    for (const answer of answers) {
      assert.equal(answer.status, 500)
      assert.match(await answer.text(), /failed: no such store/)
    }
    assert.deepEqual(
      live.since(0).map(({ what }) => what),
      ['the state of the panel failed: no such store', 'the switch idle failed: no such store'],
    )
  })
})
