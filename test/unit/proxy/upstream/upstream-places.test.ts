import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createPlaces, type Places } from '../../../../src/proxy/upstream/places.ts'

/** Waits under a name, and notes what came of it. */
function lineFor(places: Places) {
  const events: string[] = []
  function wait(name: string, entered: () => void = () => {}, forMs = 60_000) {
    const enter = () => {
      events.push(name)
      entered()
    }
    return places.wait({ enter, giveUp: () => events.push(`${name} gave up`) }, forMs)
  }
  return { events, wait }
}

test('no more than the places are taken', () => {
  const places = createPlaces(2)
  assert.deepEqual([places.take(), places.take(), places.take()], [true, true, false])
  places.leave()
  assert.deepEqual([places.take(), places.take()], [true, false])
})

test('places are given in order of arrival, and newcomers overtake nobody', () => {
  const places = createPlaces(1)
  const { events, wait } = lineFor(places)
  places.take()
  wait('first', () => assert.equal(places.take(), false))
  wait('second')
  places.leave()
  assert.deepEqual(events, ['first'])
  places.leave()
  assert.deepEqual(events, ['first', 'second'])
  places.leave()
  assert.equal(places.take(), true)
})

test('whoever stops waiting leaves the line', () => {
  const places = createPlaces(1)
  const { events, wait } = lineFor(places)
  places.take()
  const stop = wait('first')
  wait('second')
  stop()
  places.leave()
  stop()
  assert.deepEqual(events, ['second'])
})

test('nobody waits longer than they wish', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const places = createPlaces(1)
  const { events, wait } = lineFor(places)
  places.take()
  wait('first', undefined, 100)
  wait('second', undefined, 50)
  t.mock.timers.tick(99)
  assert.deepEqual(events, ['second gave up'])
  places.leave()
  t.mock.timers.tick(1)
  assert.deepEqual(events, ['second gave up', 'first'])
})

test('a long line that nobody wants to be in any more ends without a deep stack', () => {
  const places = createPlaces(1)
  const { events, wait } = lineFor(places)
  places.take()
  for (let i = 0; i < 100_000; i++) wait(String(i), () => places.leave())
  places.leave()
  assert.equal(events.length, 100_000)
  assert.equal(places.take(), true)
})
