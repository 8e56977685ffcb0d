/** What a page of several tabs uses. */
export { connect } from "../../dist/index.js";
export { tabs } from "../../dist/tabs.js";
