"""
Which test covers which rule. A rule is named as the library's test of it, or in words where several tests of single
models ask the same; the tests that cover it here stand as `file::test`, under `tests/`.
"""

_GENERATION = "contracts/test_generation_contract.py"
_MULTIMODAL = "contracts/test_multimodal_contract.py"
_MODEL = "test_modeling.py"
_SHAPES = f"{_GENERATION}::test_all_that_can_be_recorded_has_its_shape"
_ASSISTED = f"{_GENERATION}::test_assisted_decoding_says_what_greedy_decoding_says"
_STATES = f"{_MODEL}::test_features_come_with_the_inner_states_of_the_encoder_on_request"

GENERATION = {
    "greedy_generate": (_SHAPES, "test_generation.py::test_a_padded_batch_answers_as_single_prompts"),
    "greedy_generate_dict_outputs": (_SHAPES,),
    "greedy_generate_dict_outputs_use_cache": (_SHAPES, f"{_GENERATION}::test_no_cache_makes_no_difference"),
    "sample_generate": (
        _SHAPES,
        f"{_GENERATION}::test_samples_of_the_likeliest_token_are_the_greedy_answer",
        f"{_GENERATION}::test_logits_processors_are_heard",
        f"{_GENERATION}::test_nothing_but_predictable_tokens_is_said",
    ),
    "sample_generate_dict_output": (_SHAPES,),
    "beam_search_generate": (
        _SHAPES,
        "test_generation.py::test_one_beam_is_greedy_and_more_are_not_less_likely",
        "test_generation.py::test_every_one_of_several_answers_sees_the_media_of_its_prompt",
    ),
    "beam_search_generate_dict_output": (_SHAPES, f"{_MODEL}::test_transition_scores"),
    "beam_search_generate_dict_outputs_use_cache": (_SHAPES, f"{_GENERATION}::test_no_cache_makes_no_difference"),
    "beam_sample_generate": (_SHAPES,),
    "beam_sample_generate_dict_output": (_SHAPES,),
    "generate_without_input_ids": (f"{_GENERATION}::test_without_any_input_an_answer_begins_with_the_first_token",),
    "assisted_decoding_matches_greedy_search": (_ASSISTED,),
    "assisted_decoding_sample": (f"{_GENERATION}::test_assisted_sampling",),
    "assisted_decoding_with_logits_to_keep": (_ASSISTED,),
    "prompt_lookup_decoding_matches_greedy_search": (_ASSISTED,),
    "left_padding_compatibility": (
        f"{_GENERATION}::test_left_padding_makes_no_difference",
        f"{_MODEL}::test_batch_equals_single_prompts",
    ),
    "generate_with_and_without_position_ids": (f"{_GENERATION}::test_positions_may_be_given",),
    "past_key_values_format": (_SHAPES,),
    "generate_from_inputs_embeds": (f"{_GENERATION}::test_embeddings_by_themselves_or_with_ids",),
    "generate_from_random_inputs_embeds": (f"{_GENERATION}::test_embeddings_of_no_token",),
    "generate_from_inputs_embeds_with_static_cache": (f"{_GENERATION}::test_static_cache",),
    "generate_continue_from_past_key_values": (
        f"{_GENERATION}::test_an_answer_goes_on_from_the_cache",
        "test_generation.py::test_a_second_question_goes_on_from_the_cache",
    ),
    "generate_continue_from_inputs_embeds": (f"{_GENERATION}::test_an_answer_goes_on_from_the_cache",),
    "generate_with_static_cache": (f"{_GENERATION}::test_static_cache",),
    "generate_with_quant_cache": ("test_tiny_checkpoint.py::test_it_is_right_with_a_quantised_cache",),
    "offloaded_cache_implementation": ("test_generation.py::test_caches_make_no_difference",),
    "prefill_chunking": (f"{_GENERATION}::test_a_prompt_may_be_read_in_chunks",),
    "generate_compile_model_forward_fullgraph": (f"{_MODEL}::test_compiled_prefill_and_decode",),
    "generate_compilation_all_outputs": (f"{_GENERATION}::test_compiled_without_a_break_it_returns_the_same",),
    "generate_methods_with_logits_to_keep": (f"{_GENERATION}::test_all_logits_or_the_last_make_no_difference",),
    "forward_with_logits_to_keep": (f"{_MODEL}::test_logits_to_keep",),
    "inherits_generation_mixin": (f"{_GENERATION}::test_generation_comes_from_the_mixin_itself",),
    "custom_4d_attention_mask": (f"{_GENERATION}::test_a_mask_of_four_dimensions_is_taken_as_it_is",),
    "eager_matches_sdpa_generate": ("test_generation.py::test_every_attention_answers_alike_in_float32",),
    "eager_matches_fa2_generate": ("cases_flash_attention.py::test_answers_equal_eager",),
    "flash_attention_2_padding_matches_padding_free_with_position_ids": (
        "cases_flash_attention.py::test_packed_prompts_equal_single_ones",
    ),
    "eager_padding_matches_padding_free_with_position_ids": (
        f"{_GENERATION}::test_packed_prompts_do_not_see_each_other",
    ),
    "sdpa_padding_matches_padding_free_with_position_ids": (
        f"{_GENERATION}::test_packed_prompts_do_not_see_each_other",
    ),
    "prepare_inputs_for_generation": (
        f"{_GENERATION}::test_media_are_encoded_once_for_an_answer",
        "test_generation.py::test_features_computed_before_answer_as_raw_media",
    ),
    "stop_criteria_and_streamers": (
        "test_generation.py::test_stop_strings_end_an_answer",
        "test_generation.py::test_streamed_text_is_the_text",
        f"{_MODEL}::test_stop_sequences_end_an_answer",
    ),
}

MULTIMODAL = {
    "config": ("test_configuration.py::test_saved_and_loaded_unchanged",),
    "mismatching_num_image_tokens": (
        f"{_MULTIMODAL}::test_placeholders_without_items_and_items_without_placeholders",
        f"{_MODEL}::test_placeholders_and_features_must_be_equally_many",
    ),
    "several_images_of_a_prompt": (
        f"{_MULTIMODAL}::test_several_items_of_a_prompt_are_those_of_several_prompts",
        f"{_MODEL}::test_every_copy_of_a_prompt_sees_its_own_media",
    ),
    "text_only_forward": (f"{_MULTIMODAL}::test_text_alone",),
    "inputs_embeds": (f"{_MODEL}::test_embeddings_instead_of_ids",),
    "inputs_embeds_matches_input_ids": (f"{_MODEL}::test_embeddings_instead_of_ids",),
    "get_image_features_output": (f"{_MULTIMODAL}::test_features_are_an_output_or_a_tuple",),
    "get_video_features_output": (f"{_MULTIMODAL}::test_features_are_an_output_or_a_tuple",),
    "get_audio_features_output": (f"{_MULTIMODAL}::test_features_are_an_output_or_a_tuple",),
    "get_image_features_pooler_output": (f"{_MULTIMODAL}::test_features_are_an_output_or_a_tuple",),
    "get_video_features_pooler_output": (f"{_MULTIMODAL}::test_features_are_an_output_or_a_tuple",),
    "get_image_features_hidden_states": (
        _STATES,
        f"{_MULTIMODAL}::test_features_have_no_inner_states_unless_asked_for",
    ),
    "get_video_features_hidden_states": (_STATES,),
    "get_audio_features_hidden_states": (_STATES,),
    "get_image_features_attentions": (_STATES,),
    "get_video_features_attentions": (_STATES,),
    "get_audio_features_attentions": (_STATES,),
    "mm_encoder_outputs": (
        f"{_MODEL}::test_features_computed_before_give_the_same",
        f"{_MODEL}::test_raw_input_and_features_of_one_kind_are_refused",
    ),
    "model_outputs_equivalence": (f"{_MULTIMODAL}::test_a_tuple_has_what_an_output_has",),
    "attention_and_hidden_states_output": (f"{_MODEL}::test_hidden_states_and_attentions",),
    "encoder_and_decoder_are_found": (f"{_MULTIMODAL}::test_each_part_is_where_the_library_looks_for_it",),
    "sdpa_can_dispatch_composite_models": (f"{_MULTIMODAL}::test_each_part_has_the_attention_that_it_is_given",),
    "attn_implementation_composite_models": (f"{_MULTIMODAL}::test_each_part_has_the_attention_that_it_is_given",),
    "flash_attn_2_can_dispatch_composite_models": ("cases_flash_attention.py::test_every_part_asks_the_kernels",),
    "flex_attention": (f"{_MODEL}::test_attention_implementations_agree",),
    "no_split_modules_exist": (f"{_MULTIMODAL}::test_modules_that_no_device_map_may_split_exist",),
    "model_parallelism": (f"{_MODEL}::test_the_released_size_is_spread_over_two_gpus_by_whole_layers",),
    "disk_and_cpu_offload": (
        f"{_MODEL}::test_parts_on_disk",
        f"{_MODEL}::test_where_memory_ends_the_rest_goes_to_disk",
    ),
    "resize_tokens_embeddings": (
        f"{_MULTIMODAL}::test_resized_embeddings_keep_what_is_said",
        f"{_MULTIMODAL}::test_embeddings_are_not_cut_below_the_placeholders",
    ),
    "save_load": (f"{_MULTIMODAL}::test_saved_and_loaded_unchanged",),
    "reverse_loading_mapping": (f"{_MULTIMODAL}::test_saved_and_loaded_unchanged",),
    "batching_equivalence": (f"{_MODEL}::test_batch_equals_single_prompts",),
    "training_gradient_checkpointing": (f"{_MODEL}::test_gradient_checkpointing_gives_the_same_gradients",),
    "retain_grad_hidden_states_attentions": (f"{_MODEL}::test_every_parameter_gets_a_gradient",),
    "pipelines": ("test_pipelines.py::test_a_chat", "test_pipelines.py::test_chats_in_a_batch"),
    "auto_docstring": ("test_docstrings.py::test_every_argument_is_described",),
}

# Rules that say nothing about this model, each with its reason
NOT_APPLICABLE = {
    "model_parallel_beam_search": "needs two GPUs; what is placed where is tested without them",
    "generate_with_head_masking": "the rule is for models that have an encoder and a decoder of text",
    "encoder_decoder_outputs": "the rule is for models that have an encoder and a decoder of text",
    "prompt_lookup_decoding_stops_at_eos": "tests a class of the library, and no model",
    "contrastive_generate": "the library has it no more; it is loaded as code from the Hub",
    "contrastive_generate_low_memory": "the library has it no more; it is loaded as code from the Hub",
    "dola_decoding_sample": "the library has it no more; it is loaded as code from the Hub",
    "group_beam_search_generate": "the library has it no more; it is loaded as code from the Hub",
    "constrained_beam_search_generate": "the library has it no more; it is loaded as code from the Hub",
    "vision_feature_layers": "the resamplers take the last layer's output alone, as the original; there is no choice",
    "flash_attention_2_continue_generate_with_position_ids": "needs a GPU and its kernels",
}

COVERED = GENERATION | MULTIMODAL
