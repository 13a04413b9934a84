/*
 * `npm run drill`: the table of helm/README.md, fault by fault. `drill.test.ts` is what makes the faults, and finds what is
 * told of them and when.
 */
import { drillTable } from './faults.ts'

console.log(drillTable())
